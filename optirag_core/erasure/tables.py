"""A user's rows leave tables; nothing of them stays in what the others' rows are stored with."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from optirag_core.data.dataset import write_table

USER = "user_id"


def holds(table: pa.Table, user_id: str) -> bool:
    """Whether the table has a column of user ids with this one."""
    return USER in table.column_names and bool(pc.any(pc.equal(table[USER].cast(pa.string()), user_id)).as_py())


def file_holds(file: Path, user_id: str) -> bool:
    """The same of a Parquet file, of which only that column is read."""
    return USER in pq.read_schema(file).names and holds(pq.read_table(file, columns=[USER]), user_id)


def without_user(table: pa.Table, user_id: str) -> pa.Table:
    """Everybody else's rows, in order. Dictionaries are made anew: a filter leaves values in them that no row has."""
    others = pc.fill_null(pc.not_equal(table[USER].cast(pa.string()), user_id), True)
    kept = table.filter(others)
    for place, field in enumerate(kept.schema):
        if pa.types.is_dictionary(field.type):
            values = kept[field.name].cast(field.type.value_type).dictionary_encode()
            kept = kept.set_column(place, field, values.cast(field.type))
    return kept


def rewrite_parquet(file: Path, user_id: str, target: Path) -> int | None:
    """Write a file without the user's rows; returns its rows, or None, and writes nothing, where there are none."""
    if not file_holds(file, user_id):
        return None
    table = without_user(pq.read_table(file), user_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, target)
    return len(table)
