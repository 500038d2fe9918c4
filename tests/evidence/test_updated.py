"""Evidence with events against the slow loop over rows and events together, and by hand."""

from datetime import timedelta
from math import log1p

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.updated import Rated, UpdatedEvidence

from .reference import slow_features, visible
from .test_evidence import BOOKS, READ, START, asked, by_name, table_of

SPLITS = st.sampled_from(["train", "tune", "test"])
ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz"), st.integers(1, 10), SPLITS, st.integers(0, 4)),
    max_size=10, unique_by=lambda row: row[:2],
)  # fmt: skip
EVENT = st.tuples(st.sampled_from("abn"), st.sampled_from("wxyz"), st.integers(1, 10), st.integers(0, 6))
MOMENT = st.none() | st.integers(0, 7)
PAIR = st.tuples(st.sampled_from("abcnm"), st.sampled_from("wxyz"), MOMENT, MOMENT)
AUTHORS = {"w": ["Eco"], "x": ["Eco"], "y": ["Poe"], "z": []}


def order_of(day):
    return int((START + timedelta(days=day)).timestamp()) * 1_000_000


def rated(user, item, rating, order):
    return Rated(user, item, rating, int(rating > 5), order)


def as_rows(known, events, timed):
    """Events as rows behind those that are known; a late one of a pair that has a later row is left out."""
    rows = [dict(row) for row in known]
    for user, item, rating, day in events:
        moment = START + timedelta(days=day) if timed else None
        mine = [row for row in rows if row["user_id"] == user]
        same = [row for row in mine if row["item_id"] == item and row["split"] != "test"]
        position = max((row["position"] for row in mine), default=-1) + 1
        late = timed and any(row["event_time"] > moment for row in same)
        rows.append(
            {"user_id": user, "item_id": item, "rating": rating, "label": int(rating > 5), "position": position,
             "event_time": moment, "split": "test" if late else "train"}
        )  # fmt: skip
    return rows


def latest(rows, pair, timed):
    """Of each user and item the latest row that the pair may know."""
    seen = visible(rows, pair, timed)
    if timed:
        seen.sort(key=lambda row: row["event_time"])  # stable: at one moment the one that came last
    return list({(row["user_id"], row["item_id"]): row for row in seen}.values())


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS, events=st.lists(EVENT, max_size=8), split=st.integers(0, 8), pairs=st.lists(PAIR, max_size=5),
    timed=st.booleans(),
)  # fmt: skip
def test_equals_the_slow_loop_over_rows_and_events(rows, events, split, pairs, timed):
    table = table_of(rows, timed=timed)
    timed = timed or not rows
    tested = UpdatedEvidence.of(table, BOOKS, ["author"])
    together, came = as_rows(table.to_pylist(), events, timed), []
    for (user, item, rating, day), row in zip(events, together[len(rows) :], strict=True):
        came.append(rated(user, item, rating, order_of(day) if timed else row["position"]))
    for part in (came[:split], came[split:]):
        tested.add(part)
    pairs = asked(*((user, item, *((day, None) if timed else (None, place))) for user, item, day, place in pairs))
    slow = [slow_features(latest(together, pair, timed), [AUTHORS], pair, timed) for pair in pairs.to_pylist()]
    assert tested.features(pairs) == pytest.approx(np.array(slow).reshape(-1, 12), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS, events=st.lists(EVENT, max_size=5), inline=st.lists(EVENT, max_size=4), item=st.sampled_from("wxyz"),
    moment=MOMENT, timed=st.booleans(),
)  # fmt: skip
def test_a_calls_own_entries_count_behind_what_it_knows(rows, events, inline, item, moment, timed):
    table = table_of(rows, timed=timed)
    timed = timed or not rows
    tested = UpdatedEvidence.of(table, BOOKS, ["author"])
    together = as_rows(table.to_pylist(), events, timed)
    for (user, other, rating, day), row in zip(events, together[len(rows) :], strict=True):
        tested.add([rated(user, other, rating, order_of(day) if timed else row["position"])])
    pairs = asked(("a", item, *((moment, None) if timed else (None, moment))))
    before = tested.features(pairs)
    order = None if moment is None else order_of(moment) if timed else moment
    longer = tested.continued([rated("a", other, rating, 0) for _, other, rating, _ in inline], order)

    [pair] = pairs.to_pylist()
    own = [
        {"user_id": "a", "item_id": other, "rating": rating, "label": int(rating > 5), "split": "train"}
        | {"position": -1, "event_time": START - timedelta(days=9)}
        for _, other, rating, _ in inline
    ]
    known = {
        (row["user_id"], row["item_id"]): row for row in [*latest(together, pair, timed), *visible(own, pair, timed)]
    }
    slow = slow_features(list(known.values()), [AUTHORS], pair, timed)
    assert longer.features(pairs)[0] == pytest.approx(slow, abs=1e-5)
    assert tested.features(pairs).tolist() == before.tolist()


def test_by_hand():
    """n, unknown before, reads w and x, then changes the mind about w: x has 1 + 1 rows, the author Eco 3 + 2."""
    tested = UpdatedEvidence.of(table_of(READ, timed=True), BOOKS, ["author"])
    for item, rating, day in (("w", 9, 7), ("x", 3, 8), ("w", 1, 9)):
        tested.add([rated("n", item, rating, order_of(day))])
    named = by_name(tested, tested.features(asked(("b", "x", None, None)))[0])
    assert named["item: count"] == pytest.approx(log1p(2))
    assert named["author: count"] == pytest.approx(log1p(5))
    named = by_name(tested, tested.features(asked(("n", "y", 9, None)))[0])
    assert (named["user: count"], named["author: count"]) == (pytest.approx(log1p(2)), pytest.approx(log1p(2)))


@pytest.mark.parametrize("timed", [False, True])
def test_without_events_the_same_bits(tmp_path, timed):
    made = Evidence.of(table_of(READ, timed=timed), BOOKS, ["author"])
    made.save(tmp_path)
    pairs = asked(*((user, item, 4 if timed else None, None) for user in "abcn" for item in "wxyz"))
    tested = UpdatedEvidence.open(tmp_path)
    assert np.array_equal(tested.features(pairs), made.features(pairs))
    assert np.array_equal(tested.continued([], None).features(pairs), made.features(pairs))


@pytest.mark.parametrize("timed", [False, True])
def test_a_planted_event_tells_nothing_of_its_own_pair_nor_of_what_was_before_it(timed):
    honest = UpdatedEvidence.of(table_of(READ, timed=timed), BOOKS, ["author"])
    planted = UpdatedEvidence.of(table_of(READ, timed=timed), BOOKS, ["author"])
    planted.add([rated("a", "z", 1, order_of(7) if timed else 3)])
    own = asked(("a", "z", None, None), *([("a", "w", 7, None)] if timed else [("a", "w", None, 3)]))
    assert planted.features(own).tolist() == honest.features(own).tolist()
    other = asked(("a", "w", None, None))
    assert planted.features(other).tolist() != honest.features(other).tolist()
