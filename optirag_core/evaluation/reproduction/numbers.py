"""The figures of all tables and plots as one long Parquet table, for whoever wants to compute with them."""

from pathlib import Path

import pyarrow as pa

from optirag_core.data.dataset import write_table
from optirag_core.evaluation.reproduction.document import Document

NUMBERS = pa.schema(
    [
        pa.field("section", pa.string(), nullable=False),  # name
        pa.field("table", pa.string(), nullable=False),  # name
        pa.field("row", pa.string(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),  # of the 95 % interval
        pa.field("high", pa.float64()),
        pa.field("paper", pa.float64()),
        pa.field("is_noise", pa.bool_(), nullable=False),
        pa.field("is_failure", pa.bool_(), nullable=False),
        pa.field("text", pa.string()),
    ]
)
"""A row per cell, in the document's order; values are not rounded."""


def write_numbers(path: Path, document: Document) -> None:
    """Write the file."""
    write_table(numbers(document), path)


def numbers(document: Document) -> pa.Table:
    """The cells of all tables and plots, with the columns of `NUMBERS`; a plot is a table of its name."""
    cells = [
        {
            "section": section.name,
            "table": table.name,
            "row": row,
            "column": column,
            **{name: getattr(figure, name) for name in NUMBERS.names[4:]},
        }
        for section in document.sections
        for table in section.all_tables
        for row, figures in table.rows
        for column, figure in zip(table.columns, figures, strict=True)
    ]
    return pa.Table.from_pylist(cells, NUMBERS)
