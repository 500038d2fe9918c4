"""What came before a moment, by hand."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.evaluation.earlier import ALWAYS, Earlier, before_of

from .leak_world import DAY, world

MICROSECONDS = int(DAY.timestamp()) * 10**6


def day(number):
    return MICROSECONDS + number * 86_400 * 10**6


def test_interactions_of_an_item_before_a_time():
    """i2: a on day 2 (2 stars), b on day 1 (1 star), c on day 0 (none)."""
    earlier = Earlier(world(), "item_id")
    ids = pa.chunked_array([["i2", "i2", "i2", "i2", "i0", "nowhere"]])
    counts, sums = earlier.sums(ids, np.array([day(0), day(2), day(2) + 1, ALWAYS, ALWAYS, ALWAYS]))
    assert counts.tolist() == [0, 2, 3, 3, 1, 0]
    assert sums.tolist() == [0.0, 1.0, 3.0, 3.0, 0.0, 0.0]


def test_interactions_of_a_user_before_a_position():
    earlier = Earlier(world(timed=False), "user_id")
    counts, sums = earlier.sums(pa.chunked_array([["a", "b", "c"]]), np.array([0, 3, ALWAYS]))
    assert counts.tolist() == [0, 3, 5]
    assert sums.tolist() == [0.0, 3.0, 10.0]


@pytest.mark.parametrize(
    ("timed", "own", "before"),
    [(True, True, [day(4), ALWAYS]), (True, False, [day(4), ALWAYS]), (False, True, [4, ALWAYS]),
     (False, False, [ALWAYS, ALWAYS])],
)  # fmt: skip
def test_from_when_on_nothing_is_known(timed, own, before):
    """Positions are the user's own; where there are times, they decide."""
    moments = [DAY + timedelta(days=4), None] if timed else [None, None]
    pairs = pa.table({"as_of": pa.array(moments, pa.timestamp("us", "UTC")), "as_of_position": pa.array([4, None])})
    assert before_of(pairs, timed, own=own).tolist() == before
