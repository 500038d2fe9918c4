"""Whatever happens to a segment's bytes is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt
from optirag_core.events.event import ErasedEvent
from optirag_core.events.segments import (
    segment_bytes,
    segment_count,
    segment_events,
    segment_file,
    segment_without,
)
from optirag_core.storage.base import open_storage

from .small import event

EVENTS = [event("a"), event("b", rating=1.5, time=None), event("c", time_given=False)]
CONTENT = segment_bytes(EVENTS)


def test_a_segment_gives_its_events():
    assert segment_events(CONTENT, 0) == EVENTS
    assert segment_file(123) == "events/000000000123.jsonl"


def test_two_segments_of_the_same_events_differ():
    assert segment_bytes(EVENTS) != segment_bytes(EVENTS)


@given(st.integers(0, 8 * len(CONTENT) - 1))
def test_a_flipped_bit_is_seen(bit):
    damaged = bytearray(CONTENT)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ArtifactCorrupt, match=r"events/000000000007\.jsonl, line [1-5]: "):
        segment_events(bytes(damaged), 7)


@given(st.integers(0, len(CONTENT) - 1))
def test_a_missing_end_is_seen(size):
    with pytest.raises(ArtifactCorrupt):
        segment_events(CONTENT[:size], 0)


def test_the_damaged_line_is_named():
    damaged = CONTENT.replace(b"1.5", b"1,5")
    with pytest.raises(ArtifactCorrupt, match=r"events/000000000007\.jsonl, line 3: .*restore it from a backup"):
        segment_events(damaged, 7)


def test_a_users_events_leave_a_segment_and_the_others_keep_their_places():
    events = [event("a"), event("b", user_id="v"), event("c"), event("d", user_id="v")]
    content = segment_bytes(events)

    left, count = segment_without(content, 0, "v")

    assert count == 2
    assert segment_events(left, 0) == [events[0], ErasedEvent(events[1].key), events[2], ErasedEvent(events[3].key)]
    assert b'"v"' not in left
    assert left.partition(b",")[0] == content.partition(b",")[0]  # its name
    assert segment_without(left, 0, "v") == (left, 0)
    assert segment_without(content, 0, "nobody") == (content, 0)


def test_segments_are_counted_and_a_missing_one_is_named(tmp_path):
    storage = open_storage(str(tmp_path), StorageSettings())
    assert segment_count(storage) == 0
    for number in range(3):
        storage.create(segment_file(number), CONTENT)
    storage.write("events/notes.txt", b"")
    assert segment_count(storage) == 3
    storage.delete(segment_file(1))
    with pytest.raises(ArtifactCorrupt, match=r"events/000000000001\.jsonl of .* is missing, but there are later ones"):
        segment_count(storage)
