"""The Parquet file holds every cell, unrounded and in order."""

from pathlib import Path

import pyarrow.parquet as pq

from optirag_core.evaluation.reproduction.document import Document, Figure, Section, Table
from optirag_core.evaluation.reproduction.numbers import NUMBERS, write_numbers


def test_round_trip(document: Document, tmp_path: Path) -> None:
    write_numbers(tmp_path / "numbers.parquet", document)
    table = pq.read_table(tmp_path / "numbers.parquet")
    assert table.schema.equals(NUMBERS)
    cells = [
        (section.name, each.name, row, column, figure)
        for section in document.sections
        for each in [*section.tables, *(picture.numbers for picture in section.pictures if picture.numbers)]
        for row, figures in each.rows
        for column, figure in zip(each.columns, figures, strict=True)
    ]
    assert len(cells) == len(table) > 100
    assert "reliability" in table["table"].to_pylist()  # a plot's
    for read, (section, name, row, column, figure) in zip(table.to_pylist(), cells, strict=True):
        assert read == {
            "section": section, "table": name, "row": row, "column": column,
            "value": figure.value, "low": figure.low, "high": figure.high, "paper": figure.paper,
            "is_noise": figure.is_noise, "is_failure": figure.is_failure, "text": figure.text,
        }  # fmt: skip


def test_awkward_names_and_missing_values(tmp_path: Path) -> None:
    table = Table("t", "T", "", ("a|b\n<c>",), (("ä, \N{SNOWMAN}", (Figure(1 / 3),)), ("", (Figure(None, text="x"),))))
    write_numbers(tmp_path / "n.parquet", Document("D", (), (Section("s", "S", tables=(table,)),)))
    first, second = pq.read_table(tmp_path / "n.parquet").to_pylist()
    assert (first["row"], first["column"], first["value"]) == ("ä, \N{SNOWMAN}", "a|b\n<c>", 1 / 3)
    assert (second["value"], second["text"]) == (None, "x")


def test_a_document_without_tables(tmp_path: Path) -> None:
    write_numbers(tmp_path / "n.parquet", Document("D", (), ()))
    assert pq.read_table(tmp_path / "n.parquet").schema.equals(NUMBERS)
