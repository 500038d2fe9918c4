"""What every loader returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class RawDataset:
    """One publisher's data as tables, with what was noticed while reading it.

    Attributes:
        ratings: `schema.RATINGS`, in file order; every `item_id` is in `items`, every `user_id` in `users`; with
            `schema.ARRIVAL` where there are events among them.
        users: `schema.USERS` and profile columns, null where unknown.
        items: `schema.ITEMS` and further columns; a title is never empty.
        warnings: sentences for the user, each with its count.
        counts: the same as numbers, beside the sizes of the tables.
    """

    ratings: pa.Table
    users: pa.Table
    items: pa.Table
    warnings: tuple[str, ...]
    counts: Mapping[str, int]


def table_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """A table from rows with their values in the schema's order."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
