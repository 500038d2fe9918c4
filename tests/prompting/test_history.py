import pytest

from optirag_core.data.schema import INTERACTIONS
from optirag_core.errors import DataError
from optirag_core.prompting.history import Histories, Shown

from .conftest import interactions

UNTIMED = interactions(
    ("a", "x", 5, "train"), ("a", "y", 1, "train"), ("a", "z", 4, "tune"), ("a", "v", 2, "validation"),
    ("a", "t", 3, "test"), ("b", "x", 4, "train"),
)  # fmt: skip
TIMED = interactions(
    ("a", "x", 5, "train", 10), ("a", "y", 1, "train", 20), ("a", "y2", 2, "train", 20), ("a", "t", 3, "test", 30),
    ("b", "x", 4, "train", 25),
)  # fmt: skip


def of_target(table, user="a", *, as_of=None, as_of_position=None, hide=(), limit=15):
    return ids(Histories(table).of_target(user, as_of=as_of, as_of_position=as_of_position, hide=hide, limit=limit))


def of_similar(table, user="a", *, as_of=None, limit=15):
    return ids(Histories(table).of_similar(user, as_of=as_of, limit=limit))


def ids(history):
    return "".join(f"{entry.item_id} " for entry in history).strip()


def test_entries_carry_item_and_rating():
    assert Histories(UNTIMED).of_similar("a", as_of=None, limit=15) == [Shown("x", 5.0), Shown("y", 1.0)]


@pytest.mark.parametrize(("position", "expected"), [(None, "x y z v t"), (5, "x y z v t"), (4, "x y z v"), (0, "")])
def test_target_shows_nothing_at_or_after_its_position(position, expected):
    assert of_target(UNTIMED, as_of_position=position) == expected


@pytest.mark.parametrize(
    ("as_of", "expected"), [(None, "x y y2 t"), (31, "x y y2 t"), (30, "x y y2"), (21, "x y y2"), (20, "x"), (10, "")]
)
def test_target_shows_nothing_at_or_after_its_time(as_of, expected):
    """y and y2 happened at one moment: neither is the past of a request at that moment."""
    assert of_target(TIMED, as_of=as_of) == expected


def test_time_and_position_both_hold():
    assert of_target(TIMED, as_of=30, as_of_position=2) == "x y"
    assert of_target(TIMED, as_of=20, as_of_position=4) == "x"


@pytest.mark.parametrize(("as_of", "expected"), [(None, "x y y2"), (30, "x y y2"), (20, "x"), (10, "")])
def test_similar_shows_only_training_rows_before_the_time(as_of, expected):
    assert of_similar(TIMED, as_of=as_of) == expected


def test_similar_shows_only_training_rows_where_there_are_no_times():
    assert of_similar(UNTIMED) == "x y"
    assert of_similar(UNTIMED, as_of=0) == "x y"


def test_the_candidates_are_hidden_wherever_they_stand():
    assert of_target(UNTIMED, hide={"y", "t"}) == "x z v"
    assert of_target(UNTIMED, hide={"y", "t", "x", "z", "v"}) == ""


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_the_most_recent_are_shown_oldest_first(limit):
    assert of_target(UNTIMED, limit=limit) == " ".join(["x", "y", "z", "v", "t"][-limit:])
    assert of_target(UNTIMED, limit=limit, hide={"t", "y"}) == " ".join(["x", "z", "v"][-limit:])
    assert of_similar(UNTIMED, limit=limit) == " ".join(["x", "y"][-limit:])


def test_users_are_kept_apart():
    assert of_target(UNTIMED, "b") == "x"
    assert of_target(UNTIMED, "nobody") == ""
    assert of_similar(UNTIMED, "nobody") == ""


def test_rows_may_come_in_any_order():
    shuffled = UNTIMED.take([3, 5, 0, 4, 2, 1])
    assert of_target(shuffled) == "x y z v t"
    assert of_target(shuffled, "b") == "x"


def test_no_interactions_at_all():
    assert of_target(interactions()) == ""


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="interactions: column 'split' is missing"):
        Histories(UNTIMED.drop_columns("split"))
    assert "split" in INTERACTIONS.names
