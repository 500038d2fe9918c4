"""Sums that are added to against sums over a list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.evidence.running import RunningCounts

ADDED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(-1, 1), st.integers(-9, 9)), max_size=10)


@given(added=ADDED, asked=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5)), max_size=8))
def test_equals_sums_over_what_was_added(added, asked):
    tested = RunningCounts()
    for key, order, count, stars in added:
        tested.add(key, order, (float(count), 0.0, float(stars)))
    keys, before = (np.array(column, np.int64) for column in zip(*asked, strict=True)) if asked else [np.empty(0)] * 2

    def slow(key, until):
        mine = [row for row in added if row[0] == key and row[1] < until]
        return [sum(row[2] for row in mine), 0, sum(row[3] for row in mine)]

    assert tested.sums(keys, before).T.tolist() == [slow(*pair) for pair in asked]
    assert tested.sums(keys).T.tolist() == [slow(key, 99) for key, _ in asked]
