"""Running sums against sums."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.evidence.counts import Counts

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(1, 9), st.integers(0, 3)), max_size=10)


def columns(rows):
    return (np.array([row[place] for row in rows], np.int64) for place in range(4))


def test_by_hand():
    keys, labels, stars, orders = columns([(7, 1, 8, 2), (5, 0, 2, 0), (7, 0, 3, 1), (7, 1, 9, 2)])
    counts = Counts.of(keys, labels, stars, orders)
    assert counts.sums(np.array([7, 5, 6])).T.tolist() == [[3, 2, 20], [1, 0, 2], [0, 0, 0]]
    assert counts.sums(np.array([7, 7, 7, 5]), np.array([3, 2, 1, 0])).T.tolist() == [
        [3, 2, 20], [1, 0, 3], [0, 0, 0], [0, 0, 0],
    ]  # fmt: skip


@given(rows=ROWS, asked=st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), max_size=8))
def test_equals_sums_over_rows(tmp_path_factory, rows, asked):
    keys, labels, stars, orders = columns(rows)
    folder = tmp_path_factory.mktemp("counts")
    Counts.of(keys, labels, stars, orders).save(folder, "ordered")
    Counts.of(keys, labels, stars).save(folder, "whole")
    wanted = np.array([key for key, _ in asked], np.int64)
    before = np.array([order for _, order in asked], np.int64)

    def slow(limit):
        found = []
        for key, order in asked:
            mine = [row for row in rows if row[0] == key and (not limit or row[3] < order)]
            found.append([len(mine), sum(row[1] for row in mine), sum(row[2] for row in mine)])
        return found

    ordered, whole = Counts.open(folder, "ordered"), Counts.open(folder, "whole")
    assert ordered.sums(wanted, before).T.tolist() == slow(True)
    assert ordered.sums(wanted).T.tolist() == whole.sums(wanted).T.tolist() == slow(False)
