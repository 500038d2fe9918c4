"""Rows by hand: the first, the last, and as many between them as there is room for."""

import pyarrow as pa
import pytest

from optirag_core.data.spread import spread

TABLE = pa.table({"row": [*range(10)]})


ALL = [*range(10)]


@pytest.mark.parametrize(
    ("most", "rows"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, ALL), (99, ALL), (None, ALL)]
)
def test_rows_are_spread_evenly(most, rows):
    assert spread(TABLE, most)["row"].to_pylist() == rows


def test_of_nothing_there_is_nothing():
    assert len(spread(TABLE.slice(0, 0), 3)) == 0
