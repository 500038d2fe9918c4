"""A line of JSON holds an event exactly, and no other line is read as one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.events.event import ErasedEvent, UserEvent, logged_from_line

from .small import event

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
EVENTS = st.builds(
    UserEvent,
    TEXT,
    TEXT,
    TEXT,
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.integers(-(2**62), 2**62),
    st.booleans(),
)


@given(EVENTS)
def test_a_line_is_read_as_the_event_that_it_was(one):
    line = one.to_line()
    assert b"\n" not in line and line.isascii()
    assert UserEvent.from_line(line) == one


@given(EVENTS)
def test_of_an_erased_event_its_id_stays_as_a_digest(one):
    left = ErasedEvent(one.key)
    assert logged_from_line(left.to_line()) == left
    assert logged_from_line(one.to_line()) == one
    assert left.digest != one.digest
    assert set(json.loads(left.to_line())) == {"erased"}


@pytest.mark.parametrize(
    "line", [b'{"erased": 1}', b'{"erased": "ab"}', b'{"erased": "%s"}' % (b"x" * 32), b'{"gone": ""}']
)
def test_other_lines_are_no_erased_event(line):
    with pytest.raises(ValueError):
        logged_from_line(line)


@given(EVENTS, EVENTS)
def test_events_have_one_digest_where_the_caller_said_the_same(one, other):
    def said(event):
        return event.user_id, event.item_id, event.rating, event.time if event.time_given else None

    assert (one.digest == other.digest) == (said(one) == said(other))
    assert (one.key == other.key) == (one.event_id == other.event_id)


def test_a_moment_that_the_service_adds_is_not_compared():
    assert event("e", time=1, time_given=False).digest == event("e", time=2, time_given=False).digest
    assert event("e", time=1).digest != event("e", time=2).digest
    assert event("e", rating=4).digest == event("e", rating=4.0).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"rating": "4"}, {"rating": 4}, {"rating": True}, {"time": 1.0}, {"time": True}, {"user_id": None},
        {"event_id": 1}, {"time_given": 1}, {"more": 1},
    ],
)  # fmt: skip
def test_a_line_of_other_fields_or_types_is_refused(changes):
    values = json.loads(event("e").to_line())
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is|expected an object with"):
        UserEvent.from_line(json.dumps({**values, **changes}).encode())


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"{", b"null", b"\xff", event("e").to_line()[:-1]])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError):
        UserEvent.from_line(line)


def test_numbers_that_are_none_are_neither_written_nor_read():
    with pytest.raises(ValueError, match="Out of range"):
        event("e", rating=float("nan")).to_line()
    with pytest.raises(ValueError, match="rating is inf"):
        UserEvent.from_line(event("e").to_line().replace(b"4.0", b"Infinity"))
