"""A small data set that keeps all leak rules, and how a test plants a leak in a table."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from optirag_core.data.schema import INTERACTIONS

DAY = datetime(2020, 1, 1, tzinfo=UTC)
SPLIT_OF = ["train", "train", "tune", "validation", "test"]
"""Of five interactions of everybody."""


def world(*, timed=True):
    """Users a, b and c with five interactions each, a day apart: a has i0 to i4, b i1 to i5, c i2 to i6."""
    rows = [
        (user, f"i{first + number}", float(number), number % 2, DAY + timedelta(days=number) if timed else None,
         number, split)
        for first, user in enumerate("abc")
        for number, split in enumerate(SPLIT_OF)
    ]  # fmt: skip
    return pa.table(dict(zip(INTERACTIONS.names, zip(*rows, strict=True), strict=True)), schema=INTERACTIONS)


def changed(table, row, **values):
    """The table with other values in one row."""
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=table.schema)


def with_row(table, **values):
    return pa.concat_tables([table, pa.Table.from_pylist([values], schema=table.schema)])


def broken(checks):
    """(rule, violations, example) of each check that found something."""
    return [(check.name, check.violations, check.example) for check in checks if check.violations]
