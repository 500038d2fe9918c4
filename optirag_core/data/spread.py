"""A part of a table that stands for all of it."""

import numpy as np
import pyarrow as pa


def spread(table: pa.Table, most: int | None) -> pa.Table:
    """At most this many rows, the first and the last among them, spread evenly over the table; None: all rows."""
    if most is None or most >= len(table):
        return table
    return table.take(np.linspace(0, len(table) - 1, most, dtype=np.int64))
