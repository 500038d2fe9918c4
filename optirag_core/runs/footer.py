"""What a Parquet footer says, compared with itself and with the pages that were read.

Page checksums cover the values and nothing else: neither the footer nor the pages' own headers are under one. With
these comparisons no flipped bit of four small files left a wrong row; see docs/inputs.md for what stays invisible.
"""

import base64
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from optirag_core.errors import DataError


def check_footer(file: pq.ParquetFile, name: str) -> None:
    """Compare what the footer says twice: one flipped bit in it makes as_of some other column.

    Args:
        name: of the file, for the message.

    Raises:
        DataError: the footer contradicts itself.
    """
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows != file.metadata.num_rows:
        raise DataError(f"{name}: row groups have {rows:,} rows, the footer says {file.metadata.num_rows:,}")
    written = _written_schema(file)
    if written is None:
        return
    if written.names != file.schema_arrow.names:
        raise DataError(f"{name}: its footer names the columns {file.schema_arrow.names} and {written.names}")
    for field in written:
        came = file.schema_arrow.field(field.name).type
        if types.is_timestamp(field.type) and types.is_timestamp(came) and _is_finer(came, field.type):
            raise DataError(f"{name}: its footer says that {field.name!r} is {came} and {field.type}")


def check_group(file: pq.ParquetFile, group: int, found: Mapping[str, int], name: str) -> None:
    """Compare a row group that was read with the footer: a page's header may claim fewer values than were written.

    Only after the group has been read: pyarrow 26.0.1 ends the whole process when `column` meets a footer that
    contradicts itself, while the reader, which makes the same object, raises.

    Args:
        found: column -> values in it, summed over `num_values` of the group's tables.
        name: of the file, for the message.

    Raises:
        DataError: rows or values are missing, or too many.
    """
    metadata = file.metadata.row_group(group)
    if found["user_id"] != metadata.num_rows:
        raise DataError(
            f"{name}: row group {group} has {found['user_id']:,} rows, its footer says {metadata.num_rows:,}"
        )
    for number in range(metadata.num_columns):
        column = file.schema.column(number).path.partition(".")[0]
        if column not in found:
            continue
        chunk = metadata.column(number)
        if found[column] != chunk.num_values:
            raise DataError(
                f"{name}: row group {group} of column {column!r} holds {found[column]:,} values, its footer says "
                f"{chunk.num_values:,}: the file is damaged"
            )


def num_values(table: pa.Table) -> dict[str, int]:
    """Values of each column as Parquet counts them: a null or empty list is one."""
    counts = dict.fromkeys(table.column_names, table.num_rows)
    if "item_ids" in counts:
        lengths = pc.fill_null(pc.list_value_length(table["item_ids"]), 0)
        counts["item_ids"] = pc.sum(pc.max_element_wise(lengths, 1)).as_py() or 0
    return counts


def _written_schema(file: pq.ParquetFile) -> pa.Schema | None:
    """The schema that Arrow's writers keep beside Parquet's own; None where another writer made the file."""
    encoded = (file.metadata.metadata or {}).get(b"ARROW:schema")
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded, validate=True))) if encoded else None


def _is_finer(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether one timestamp's unit is finer than the other's; Parquet has no seconds, Arrow's become milliseconds."""
    fineness = {"s": 0, "ms": 0, "us": 1, "ns": 2}
    return fineness[one.unit] > fineness[other.unit]
