"""Bring your own data: `interactions.parquet`, `items.parquet` and, optionally, `users.parquet` in one folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from optirag_core.config.data import DatasetSettings
from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.raw_files import require_folder
from optirag_core.data.schema import ITEMS, RATINGS, TIMESTAMP, USERS, require_columns
from optirag_core.data.text import clean_text
from optirag_core.errors import DataError

REQUIRED = pa.schema(field for field in RATINGS if field.name != "event_time")


def load_tables(folder: Path, settings: DatasetSettings) -> RawDataset:
    """Read the tables; further columns of items and users are kept, for the prompt's template.

    Ids are text or whole numbers. `event_time` may be absent or null throughout; times without a zone are UTC.

    Raises:
        DataError: a table is missing or unreadable; a column is missing or of another type; ids, ratings or titles are
            null; only some times are null; an id repeats; an interaction's item is not in items.
    """
    require_folder(folder)
    ratings = _ratings(_read(folder, "interactions"))
    items = _entities(_read(folder, "items"), ITEMS, "items")
    items = items.set_column(items.column_names.index("title"), "title", _titles(items))
    users_file = folder / "users.parquet"
    users = _entities(_read(folder, "users"), USERS, "users") if users_file.is_file() else USERS.empty_table()
    _require_known_items(ratings, items)
    unknown_users = _missing(ratings["user_id"], users["user_id"])
    warnings = []
    if not users_file.is_file():
        warnings.append(f"no users.parquet in {folder}: users have no profiles")
    elif len(unknown_users):
        warnings.append(f"{len(unknown_users):,} users of interactions are not in users: their profiles are unknown")
    users = pa.concat_tables([users, pa.table([unknown_users], schema=USERS)], promote_options="default")
    return RawDataset(
        ratings=ratings,
        users=users,
        items=items,
        warnings=tuple(warnings),
        counts={
            "users_without_profile": len(unknown_users),
            "num_ratings": ratings.num_rows,
            "num_users": users.num_rows,
            "num_items": items.num_rows,
        },
    )


def _read(folder: Path, name: str) -> pa.Table:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise DataError(
            f"no {path.name} in {folder}: expected interactions.parquet (user_id, item_id, rating) and items.parquet "
            "(item_id, title)"
        )
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {' '.join(str(error).split())[:200]}") from None


def _ratings(table: pa.Table) -> pa.Table:
    table = require_columns(table, REQUIRED, "interactions.parquet")
    if "event_time" in table.column_names:
        times = _utc(table["event_time"])
        table = table.set_column(table.column_names.index("event_time"), "event_time", times)
    else:
        table = table.append_column("event_time", pa.nulls(table.num_rows, TIMESTAMP))
    ratings = require_columns(table, RATINGS, "interactions.parquet")
    if ratings.num_rows == 0:
        raise DataError("interactions has no rows")
    _require_values(ratings, ("user_id", "item_id", "rating"), "interactions")
    num_not_finite = pc.sum(pc.invert(pc.is_finite(ratings["rating"]))).as_py()
    if num_not_finite:
        raise DataError(f"interactions: column 'rating' is not finite in {num_not_finite:,} rows: remove them")
    if 0 < ratings["event_time"].null_count < ratings.num_rows:
        raise DataError(
            f"interactions: column 'event_time' is null in {ratings['event_time'].null_count:,} of "
            f"{ratings.num_rows:,} rows: give a time to all of them, or to none"
        )
    return ratings


def _utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any timestamp, date or null column as `TIMESTAMP`."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or pa.types.is_null(column.type):
        # truncating: finer than microseconds is noise, and a zone only changes how the instant is written
        return column.cast(options=pc.CastOptions.unsafe(TIMESTAMP))
    raise DataError(f"interactions: column 'event_time' is {column.type}, expected a timestamp or a date")


def _entities(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    table = require_columns(table, schema, f"{name}.parquet")
    _require_values(table, schema.names, name)
    key = schema.names[0]
    num_repeated = table.num_rows - pc.count_distinct(table[key]).as_py()
    if num_repeated:
        raise DataError(f"{name}: {num_repeated:,} of {table.num_rows:,} rows repeat a {key}: one row per {key}")
    return table


def _require_values(table: pa.Table, columns: tuple[str, ...] | list[str], name: str) -> None:
    for column in columns:
        if table[column].null_count:
            raise DataError(
                f"{name}: column {column!r} is null in {table[column].null_count:,} of {table.num_rows:,} rows"
            )


def _titles(items: pa.Table) -> pa.Array:
    pairs = zip(items["title"].to_pylist(), items["item_id"].to_pylist(), strict=True)
    return pa.array([clean_text(title) or item for title, item in pairs], pa.string())


def _require_known_items(ratings: pa.Table, items: pa.Table) -> None:
    missing = _missing(ratings["item_id"], items["item_id"])
    if len(missing):
        raise DataError(
            f"interactions name {len(missing):,} items that the items table lacks, e.g. {missing[0].as_py()!r}: "
            "a prompt needs their titles"
        )


def _missing(used: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.Array:
    """The distinct values of `used` that `known` lacks, in order of appearance."""
    distinct = pc.unique(used)
    return distinct.filter(pc.invert(pc.is_in(distinct, known.combine_chunks())))
