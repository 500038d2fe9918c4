"""By hand, against the slow loop, and with every leak planted once."""

from datetime import UTC, datetime, timedelta
from math import log, log1p

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.data.schema import INTERACTIONS, PAIRS
from optirag_core.errors import DataError
from optirag_core.evidence import evidence
from optirag_core.evidence.evidence import Evidence

from .reference import slow_features

START = datetime(2020, 1, 1, tzinfo=UTC)
BOOKS = pa.table(
    {"item_id": ["w", "x", "y", "z"], "title": ["W", "X", "Y", "Z"], "author": ["Eco", "Eco", "Poe", None]}
)
READ = [  # user, item, rating, split, day; liked above 5
    ("a", "w", 8, "train", 1),
    ("a", "x", 2, "train", 2),
    ("a", "y", 9, "validation", 3),
    ("b", "w", 7, "train", 2),
    ("b", "y", 4, "train", 4),
    ("c", "z", 6, "train", 5),
    ("c", "x", 1, "test", 6),
]


def table_of(rows, *, timed):
    positions = {}
    for user, *_ in rows:
        positions.setdefault(user, iter(range(len(rows))))
    return pa.Table.from_pylist(
        [
            {"user_id": user, "item_id": item, "rating": rating, "label": int(rating > 5), "split": split,
             "position": next(positions[user]), "event_time": START + timedelta(days=day) if timed else None}
            for user, item, rating, split, day in rows
        ],
        schema=INTERACTIONS,
    )  # fmt: skip


def asked(*pairs):
    """(user, item, day or None, position or None) -> PAIRS"""
    return pa.Table.from_pylist(
        [
            {"user_id": user, "item_id": item, "as_of_position": position,
             "as_of": None if day is None else START + timedelta(days=day)}
            for user, item, day, position in pairs
        ],
        schema=PAIRS,
    )  # fmt: skip


def by_name(found, row):
    return dict(zip(found.names, row.tolist(), strict=True))


def odds(share):
    return pytest.approx(log(share / (1 - share)), abs=1e-6)


def test_three_users_four_items_by_hand():
    found = Evidence.of(table_of(READ, timed=False), BOOKS, ["author"])
    [row] = found.features(asked(("b", "x", None, None)))
    # 6 known rows, 4 liked, mean 36 / 6; b: 1 of 2 liked, stars 11; x: a's 2 stars; Eco: 8, 2 and b's 7; b x Eco: 7
    prior = 5 / 8
    assert by_name(found, row) == {
        "user: liked": odds((1 + 3 * prior) / 5),
        "user: stars": pytest.approx((11 - 12) / 5),
        "user: count": pytest.approx(log1p(2)),
        "item: liked": odds(3 * prior / 4),
        "item: stars": pytest.approx((2 - 6) / 4),
        "item: count": pytest.approx(log1p(1)),
        "author: liked": odds((2 + 3 * prior) / 6),
        "author: stars": pytest.approx((17 - 18) / 6),
        "author: count": pytest.approx(log1p(3)),
        "user x author: liked": odds((1 + 3 * prior) / 4),
        "user x author: stars": pytest.approx((7 - 6) / 4),
        "user x author: count": pytest.approx(log1p(1)),
    }


def test_a_position_hides_the_users_own_rows_from_it_on():
    found = Evidence.of(table_of(READ, timed=False), BOOKS, ["author"])
    [row] = found.features(asked(("a", "y", None, 1)))
    # left: a's 8, and b's and c's; without y itself the author Poe has b's 4
    named = by_name(found, row)
    assert (named["user: count"], named["item: count"]) == (pytest.approx(log1p(1)), pytest.approx(log1p(1)))
    assert named["author: count"] == pytest.approx(log1p(1))
    assert named["user: liked"] == odds((1 + 3 * 4 / 6) / 4)  # 3 of the 4 visible rows are liked


def test_a_moment_hides_everybodys_rows_from_it_on():
    found = Evidence.of(table_of(READ, timed=True), BOOKS, ["author"])
    [row] = found.features(asked(("a", "x", 2, 9)))
    # before the second day: a's w alone, of the author Eco
    named = by_name(found, row)
    assert [named[f"{key}: count"] for key in ("user", "item", "author", "user x author")] == pytest.approx(
        [log1p(1), 0, log1p(1), log1p(1)]
    )
    assert named["user: liked"] == odds((1 + 3 * 2 / 3) / 4)


def test_of_the_unknown_the_prior_alone_is_left():
    found = Evidence.of(table_of(READ, timed=False), BOOKS, ["author"])
    rows = found.features(asked(("new", "unheard", None, None), (None, None, None, 3)))
    assert rows.tolist() == [pytest.approx([log(5 / 3), 0, 0] * 4)] * 2


def test_no_rows_and_no_pairs_are_no_error():
    empty = Evidence.of(table_of([], timed=False), BOOKS, ["author"])
    assert empty.features(asked(("a", "w", 1, None))).tolist() == [[0.0] * 12]
    assert empty.features(asked()).shape == (0, 12)


LEAKS = {
    "the pair's own row": ("a", "w", 1, "train", 1),
    "a test row": ("b", "x", 1, "test", 1),
    "the user's later row": ("a", "y", 1, "train", 9),
}


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_changes_nothing(leak, timed):
    rows = [row for row in READ if row[:2] not in (("a", "w"), ("b", "x"), ("a", "y"))]
    pair = asked(("a", "w", 5 if timed else None, 1))
    honest, planted = (
        Evidence.of(table_of(given, timed=timed), BOOKS, ["author"]).features(pair)
        for given in (rows, [*rows, LEAKS[leak]])
    )
    assert honest.tolist() == planted.tolist()


def test_anothers_future_row_changes_nothing_where_there_are_times():
    pair = asked(("a", "w", 3, None))
    honest, planted, earlier = (
        Evidence.of(table_of([*READ, *more], timed=True), BOOKS, ["author"]).features(pair)
        for more in ([], [("d", "w", 1, "train", 3)], [("d", "w", 1, "train", 2)])
    )
    assert honest.tolist() == planted.tolist() != earlier.tolist()


IDS = st.sampled_from("abc")
MOMENT = st.none() | st.integers(0, 4)
ROW = st.tuples(
    IDS, st.sampled_from("wxyz"), st.integers(1, 10), st.sampled_from(["train", "tune", "test"]), st.integers(0, 4)
)
PAIR = st.tuples(st.none() | st.sampled_from("abcn"), st.none() | st.sampled_from("wxyzn"), MOMENT, MOMENT)
AUTHORS = st.lists(st.sampled_from(["Eco", "Poe", "", None]), min_size=4, max_size=4)
TAGS = st.lists(st.none() | st.lists(st.none() | st.integers(0, 2), max_size=3), min_size=4, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(ROW, max_size=12), pairs=st.lists(PAIR, max_size=6), authors=AUTHORS, tags=TAGS, timed=st.booleans()
)
def test_equals_the_slow_loop(tmp_path_factory, rows, pairs, authors, tags, timed):
    items = pa.table({"item_id": list("wxyz"), "title": list("wxyz"), "author": pa.array(authors, pa.string()),
                      "tags": pa.array(tags, pa.list_(pa.int64()))})  # fmt: skip
    values = [
        {item: [author] if author else [] for item, author in zip("wxyz", authors, strict=True)},
        {item: {tag for tag in of or [] if tag is not None} for item, of in zip("wxyz", tags, strict=True)},
    ]
    table = table_of(rows, timed=timed)
    timed = timed or not rows  # of no rows each has a time
    # on timed data the moment is a time, else a position
    pairs = asked(*((user, item, *((day, None) if timed else (None, place))) for user, item, day, place in pairs))
    folder = tmp_path_factory.mktemp("evidence")
    made = Evidence.of(table, items, ["author", "tags"])
    made.save(folder)
    slow = [slow_features(table.to_pylist(), values, pair, timed) for pair in pairs.to_pylist()]

    for found in (made, Evidence.open(folder)):
        assert (found.timed, found.attributes, len(found.names)) == (timed, ("author", "tags"), 18)
        assert found.features(pairs) == pytest.approx(np.array(slow).reshape(-1, 18), abs=1e-5)


def test_many_pairs_are_taken_in_parts(monkeypatch):
    found = Evidence.of(table_of(READ, timed=False), BOOKS, ["author"])
    pairs = asked(*((user, item, None, None) for user in "abcn" for item in "wxyz"))
    whole = found.features(pairs)
    monkeypatch.setattr(evidence, "PAIRS_AT_ONCE", 3)
    assert found.features(pairs).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("timed", "pair", "message"),
    [
        (True, ("a", "w", None, 1), "1 pairs have an as_of_position alone.*give as_of"),
        (False, ("a", "w", 1, None), "1 pairs have an as_of, but not every interaction has an event_time"),
    ],
)
def test_a_moment_that_cannot_be_kept_is_refused(timed, pair, message):
    found = Evidence.of(table_of(READ, timed=timed), BOOKS, ["author"])
    with pytest.raises(DataError, match=message):
        found.features(asked(pair, ("b", "w", None, None)))
