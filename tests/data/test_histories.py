"""Leak rules by hand and against plain lists; the mapped columns against those in memory; recent events."""

from multiprocessing import get_context

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.data import histories
from optirag_core.data.histories import Histories, Shown
from optirag_core.errors import DataError
from tests.prompting.conftest import interactions

UNTIMED = interactions(
    ("a", "x", 5, "train"), ("a", "y", 1, "train"), ("a", "z", 4, "tune"), ("a", "v", 2, "validation"),
    ("a", "t", 3, "test"), ("b", "x", 4, "train"),
)  # fmt: skip
TIMED = interactions(
    ("a", "x", 5, "train", 10), ("a", "y", 1, "train", 20), ("a", "y2", 2, "train", 20), ("a", "t", 3, "test", 30),
    ("b", "x", 4, "train", 25),
)  # fmt: skip


def of_target(table, user="a", *, limit=15, **request):
    tested = table if isinstance(table, Histories) else Histories.of(table)
    return ids(tested.of_target(tested.past(user, **request), limit=limit))


def of_similar(table, user="a", *, asker="nobody", limit=15, **request):
    tested = Histories.of(table)
    return ids(tested.of_similar(user, tested.past(asker, **request), limit=limit))


def ids(history):
    return "".join(f"{entry.item_id} " for entry in history).strip()


def test_entries_carry_item_and_rating():
    tested = Histories.of(UNTIMED)
    assert tested.of_similar("a", tested.past("b"), limit=15) == [Shown("x", 5.0), Shown("y", 1.0)]


@pytest.mark.parametrize(("position", "expected"), [(None, "x y z v t"), (5, "x y z v t"), (4, "x y z v"), (0, "")])
def test_target_shows_nothing_at_or_after_its_position(position, expected):
    assert of_target(UNTIMED, as_of_position=position) == expected


@pytest.mark.parametrize(
    ("as_of", "expected"), [(None, "x y y2 t"), (31, "x y y2 t"), (30, "x y y2"), (21, "x y y2"), (20, "x"), (10, "")]
)
def test_target_shows_nothing_at_or_after_its_time(as_of, expected):
    """y and y2 happened at one moment: neither is the past of a request at that moment."""
    assert of_target(TIMED, as_of=as_of) == expected


@pytest.mark.parametrize(("position", "expected"), [(0, ""), (1, "x"), (2, "x"), (3, "x y y2"), (4, "x y y2 t")])
def test_a_position_means_its_moment_where_there_are_times(position, expected):
    assert of_target(TIMED, as_of_position=position) == expected


@pytest.mark.parametrize(
    ("asker", "position", "expected"),
    [("b", 0, "x y y2"), ("a", 1, "x"), ("a", 0, ""), ("b", 1, "x y y2"), ("nobody", 0, "x y y2")],
    ids=["at 25", "at 20", "at 10", "beyond the last", "unknown user"],
)
def test_a_position_cuts_similar_users_at_its_moment(asker, position, expected):
    assert of_similar(TIMED, asker=asker, as_of_position=position) == expected


def test_a_position_without_times_cuts_only_the_target():
    assert of_similar(UNTIMED, asker="b", as_of_position=0) == "x y"


def test_time_and_position_both_hold():
    assert of_target(TIMED, as_of=30, as_of_position=2) == "x"
    assert of_target(TIMED, as_of=20, as_of_position=4) == "x"
    assert of_similar(TIMED, asker="b", as_of=20, as_of_position=0) == "x"
    assert of_similar(TIMED, asker="b", as_of=30, as_of_position=0) == "x y y2"
    assert of_similar(TIMED, asker="a", as_of=30, as_of_position=0) == ""


@pytest.mark.parametrize(("as_of", "expected"), [(None, "x y y2"), (30, "x y y2"), (20, "x"), (10, "")])
def test_similar_shows_only_training_rows_before_the_time(as_of, expected):
    assert of_similar(TIMED, as_of=as_of) == expected


def test_similar_shows_only_training_rows_where_there_are_no_times():
    assert of_similar(UNTIMED) == "x y"
    assert of_similar(UNTIMED, as_of=0) == "x y"


def test_the_candidates_are_hidden_wherever_they_stand():
    assert of_target(UNTIMED, hide={"y", "t"}) == "x z v"
    assert of_target(UNTIMED, hide={"y", "t", "x", "z", "v"}) == ""
    assert of_target(UNTIMED, hide={"no such item"}) == "x y z v t"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_the_most_recent_are_shown_oldest_first(limit):
    assert of_target(UNTIMED, limit=limit) == " ".join(["x", "y", "z", "v", "t"][-limit:])
    assert of_target(UNTIMED, limit=limit, hide={"t", "y"}) == " ".join(["x", "z", "v"][-limit:])
    assert of_similar(UNTIMED, limit=limit) == " ".join(["x", "y"][-limit:])


def test_users_are_kept_apart():
    assert of_target(UNTIMED, "b") == "x"
    assert of_target(UNTIMED, "nobody") == ""
    assert of_target(UNTIMED, None) == ""
    assert of_similar(UNTIMED, "nobody") == ""


def test_rows_may_come_in_any_order():
    shuffled = UNTIMED.take([3, 5, 0, 4, 2, 1])
    assert of_target(shuffled) == "x y z v t"
    assert of_target(shuffled, "b") == "x"


def test_no_interactions_at_all(tmp_path):
    assert of_target(interactions()) == ""
    Histories.of(interactions()).save(tmp_path)
    assert of_target(Histories.open(tmp_path)) == ""


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="interactions: column 'split' is missing"):
        Histories.of(UNTIMED.drop_columns("split"))


def test_means_by_hand_count_training_ratings_before_the_request():
    """a's training ratings: 5 at 10, 1 and 2 at 20; the test rating 3 at 30 never counts."""
    tested = Histories.of(TIMED)
    for as_of, expected in ((31, 8 / 3), (21, 8 / 3), (20, 5.0), (10, None)):
        past = tested.past("a", as_of=as_of)
        assert tested.mean_of_target(past) == expected
        assert tested.mean_of_similar("a", tested.past("b", as_of=as_of)) == expected
    assert tested.mean_of_target(tested.past("a", hide={"x"})) == 1.5
    assert tested.mean_of_similar("a", tested.past("b", hide={"x"})) == 8 / 3
    assert tested.mean_of_target(tested.past("nobody")) is None


def test_without_times_the_position_bounds_the_mean_of_the_target():
    tested = Histories.of(UNTIMED)
    means = [tested.mean_of_target(tested.past("a", as_of_position=position)) for position in (0, 1, 2, 5, None)]
    assert means == [None, 5.0, 3.0, 3.0, 3.0]
    assert tested.mean_of_similar("a", tested.past("b", as_of_position=0)) == 3.0


def test_popularity_counts_training_rows():
    counts = Histories.of(UNTIMED).popularity(pa.array(["x", "no such item", "t", "y"]))
    assert counts.tolist() == [2, 0, 0, 1]


def test_activity_counts_training_rows():
    rows = [("a", "x", 5, "train"), ("a", "y", 1, "train"), ("a", "z", 4, "test"), ("b", "x", 2, "tune")]
    table = interactions(*rows, ("c", "y", 3, "train"))
    assert Histories.of(table).activity(pa.array(["c", "nobody", "a", "b"])).tolist() == [1, 0, 2, 0]


SPLITS = ("train", "tune", "validation", "test")


@st.composite
def cases(draw):
    """Rows of up to three users, in order, and a request."""
    timed = draw(st.booleans())
    rows = []
    for user in "abc":
        items = draw(st.lists(st.sampled_from("uvwxyz"), unique=True))
        times = sorted(draw(st.lists(st.integers(0, 9), min_size=len(items), max_size=len(items))))
        for item_id, time in zip(items, times, strict=True):
            row = (user, item_id, draw(st.integers(1, 5)), draw(st.sampled_from(SPLITS)))
            rows.append((*row, time) if timed else row)
    as_of = draw(st.none() | st.integers(0, 10))
    position = draw(st.none() | st.integers(0, 7))
    return rows, timed, draw(st.sampled_from("abcd")), as_of, position, draw(st.sets(st.sampled_from("uvwxyz")))


@examples(max_examples=200, deadline=None)
@given(case=cases(), limit=st.integers(1, 7))
def test_equal_to_plain_lists(case, limit):
    rows, timed, user, as_of, position, hide = case
    own = [row for row in rows if row[0] == user]
    moment = 99
    if timed and as_of is not None:
        moment = as_of
    if timed and position is not None and position < len(own):
        moment = min(moment, own[position][4])
    known = [row for row in own[:position] if (not timed or row[4] < moment) and row[1] not in hide]
    tested = Histories.of(interactions(*rows))
    past = tested.past(user, as_of=as_of, as_of_position=position, hide=hide)
    assert tested.timed is (timed or not rows)
    assert tested.of_target(past, limit=limit) == [Shown(row[1], row[2]) for row in known][-limit:]
    assert tested.mean_of_target(past) == plain_mean(known)
    for other in "abcd":
        train = [row for row in rows if row[0] == other and row[3] == "train" and (not timed or row[4] < moment)]
        assert tested.of_similar(other, past, limit=limit) == [Shown(row[1], row[2]) for row in train][-limit:]
        assert tested.mean_of_similar(other, past) == plain_mean(train)


def plain_mean(rows):
    ratings = [row[2] for row in rows if row[3] == "train"]
    return sum(ratings) / len(ratings) if ratings else None


def test_two_processes_read_what_was_saved(tmp_path):
    Histories.of(TIMED).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(histories.FILES)
    with get_context("spawn").Pool(2) as pool:
        read = pool.map(read_all, [tmp_path] * 2)
    assert read == [["x y y2 t", "x", "", "x y y2", "x"]] * 2
    assert Histories.open(tmp_path).timed


def read_all(folder):
    tested = Histories.open(folder)
    past = tested.past("b", as_of=25)
    similar = [ids(tested.of_similar(user, past, limit=15)) for user in ("a", "b")]
    return [of_target(tested, "a"), of_target(tested, "b"), *similar[1:], similar[0], of_target(tested, as_of=20)]


def test_events_follow_what_was_saved(tmp_path):
    Histories.of(TIMED).save(tmp_path)
    tested = Histories.open(tmp_path)
    for user, item_id, time in (("a", "new", 40), ("a", "newer", 50), ("stranger", "x", 45)):
        tested.append(user, item_id, 2, time)
    assert of_target(tested) == "x y y2 t new newer"
    assert of_target(tested, limit=3) == "t new newer"
    assert of_target(tested, as_of=50) == "x y y2 t new"
    assert of_target(tested, as_of=40) == "x y y2 t"
    assert of_target(tested, hide={"new"}) == "x y y2 t newer"
    assert of_target(tested, "stranger") == "x"
    assert [of_target(tested, as_of_position=position) for position in (4, 5, 6)] == [
        "x y y2 t", "x y y2 t new", "x y y2 t new newer",
    ]  # fmt: skip


def test_a_position_among_events_means_their_moment():
    tested = Histories.of(TIMED)
    tested.append("b", "new", 2, 45)
    assert tested.past("b", as_of_position=1).moment == 45
    assert tested.past("b", as_of_position=2).moment is None


def test_no_event_reaches_other_users():
    tested = Histories.of(TIMED)
    past = tested.past("b")
    before = tested.of_similar("a", past, limit=15), tested.mean_of_similar("a", past)
    tested.append("a", "new", 5, 40)
    assert (tested.of_similar("a", past, limit=15), tested.mean_of_similar("a", past)) == before


def test_means_by_hand_count_events():
    """Training ratings 5, 1, 2; then new 4 at 40, y again 3 at 50, and t, of the test split, 2 at 60."""
    tested = Histories.of(TIMED)
    for item_id, rating, time in (("new", 4, 40), ("y", 3, 50), ("t", 2, 60)):
        tested.append("a", item_id, rating, time)
    means = [tested.mean_of_target(tested.past("a", as_of=as_of)) for as_of in (40, 50, 60, None)]
    assert means == [8 / 3, 12 / 4, 14 / 4, 16 / 5]
    assert tested.mean_of_target(tested.past("a", hide={"new", "t"})) == 10 / 3


def test_without_times_events_come_in_the_order_of_arrival():
    tested = Histories.of(UNTIMED)
    tested.append("b", "z", 4, None)
    tested.append("b", "y", 4, None)
    assert of_target(tested, "b") == "x z y"
    assert of_target(tested, "b", as_of_position=2) == "x z"


def test_an_event_without_time_is_refused_where_there_are_times():
    tested = Histories.of(TIMED)
    with pytest.raises(DataError, match="an event of user 'a' has no time"):
        tested.append("a", "new", 5, None)
    assert of_target(tested) == "x y y2 t"


def test_a_late_event_takes_its_place_by_time():
    tested = Histories.of(TIMED)
    tested.append("a", "late", 5, 15)
    tested.append("a", "x", 1, 9)
    assert of_target(tested) == "x late y y2 t"
    assert tested.of_target(tested.past("a"), limit=15)[0].rating == 5.0  # the one at 10, not the one at 9
    assert of_target(tested, as_of=15) == "x"
    assert of_target(tested, limit=3) == "y y2 t"


def test_a_calls_own_entries_come_behind_all_and_stay_in_the_call():
    for table in (TIMED, UNTIMED):
        tested = Histories.of(table)
        before = of_target(tested)
        tested.append("a", "new", 4, 40)
        longer = tested.continued("a", [Shown("mine", 4.0), Shown("x", 1.0)])
        assert of_target(longer) == before.removeprefix("x ") + " new mine x"
        assert of_target(longer, as_of_position=0) == "mine x"
        assert of_target(longer, hide={"mine"}, limit=2) == "new x"
        assert of_target(tested) == before + " new"
        assert of_target(tested.continued("stranger", [Shown("x", 1.0)]), "stranger") == "x"


def test_items_of_training_and_of_events():
    tested = Histories.of(UNTIMED)
    position = tested.append("a", "new", 4, None).position
    assert (position, tested.training_items("a"), tested.training_items("nobody")) == (5, ["x", "y"], [])
    assert ids(tested.events_of(tested.past("a"))) == "new"
    assert tested.events_of(tested.past("a", as_of_position=5)) == tested.events_of(tested.past("b")) == []


def test_users_by_the_beginning_of_their_ids():
    rows = [(user, "x", 4, "train") for user in ("anna", "anne", "bob", "ana")]
    tested = Histories.of(interactions(*rows))
    tested.append("anja", "x", 4, None)
    assert tested.users("an", 9) == ["ana", "anja", "anna", "anne"]
    assert tested.users("an", 2) == ["ana", "anja"]
    assert tested.users("", 9) == ["ana", "anja", "anna", "anne", "bob"]
    assert tested.users("z", 9) == tested.users("anna ", 9) == []


def test_an_item_that_is_rated_again_is_shown_once_as_the_latest():
    tested = Histories.of(TIMED)
    tested.append("a", "y", 1, 40)
    assert of_target(tested) == "x y2 t y"
    assert tested.of_target(tested.past("a"), limit=1)[0].rating == 1.0
    assert of_target(tested, as_of=40) == "x y y2 t"
