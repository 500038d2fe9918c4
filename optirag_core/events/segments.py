"""Numbered files that together are a log: `events/000000000000.jsonl`, `events/000000000001.jsonl`, ...

Each holds what was committed at once: a line about the segment (events, checksum, and a name that tells it from another
process's segment of the same events), then a line per event. A segment is created whole and never changes, except that
an erasure replaces a user's events in it; of several processes that create one number, one wins. So who has read all
segments up to a number knows what lies before it.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from uuid import uuid4

from optirag_core.errors import ArtifactCorrupt
from optirag_core.events.event import ErasedEvent, UserEvent, logged_from_line
from optirag_core.storage.base import Storage

FOLDER = "events"
_NAME = re.compile(rf"{FOLDER}/(\d{{12}})\.jsonl")
_HEAD_NAME = re.compile(rb'\{"name": "([0-9a-f]{32})"')


def segment_file(number: int) -> str:
    """Where a segment lies in the workspace."""
    return f"{FOLDER}/{number:012}.jsonl"


def segment_bytes(events: Sequence[UserEvent | ErasedEvent], name: str | None = None) -> bytes:
    """The content of a segment.

    Args:
        name: of the attempt to write it; default: a fresh one.
    """
    lines = b"".join(event.to_line() + b"\n" for event in events)
    name = name or uuid4().hex
    head = {"name": name, "events": len(events), "sha256": sha256(name.encode() + lines).hexdigest()}
    return json.dumps(head).encode() + b"\n" + lines


def segment_events(content: bytes, number: int) -> list[UserEvent | ErasedEvent]:
    """
    Raises:
        ArtifactCorrupt: a line is damaged, or the segment differs from its checksum.
    """
    head, _, lines = content.partition(b"\n")
    events = []
    for place, line in enumerate(lines.splitlines(), start=2):
        try:
            events.append(logged_from_line(line))
        except ValueError as error:  # also of JSON and UTF-8
            raise _damaged(number, f", line {place}: {' '.join(str(error).split())[:200]}") from None
    name = _HEAD_NAME.match(head)
    if not name or content != segment_bytes(events, name[1].decode()):
        raise _damaged(number, f", line 1: {head[:150]!r} does not fit its {len(events)} events")
    return events


def segment_without(content: bytes, number: int, user_id: str) -> tuple[bytes, int]:
    """The segment with `ErasedEvent`s in place of a user's events, under its own name, and how many they are.

    Raises:
        ArtifactCorrupt: as `segment_events`.
    """
    events = segment_events(content, number)
    theirs = [isinstance(event, UserEvent) and event.user_id == user_id for event in events]
    left = [ErasedEvent(event.key) if gone else event for event, gone in zip(events, theirs, strict=True)]
    name = _HEAD_NAME.match(content)
    return segment_bytes(left, name and name[1].decode()), sum(theirs)


def segment_count(storage: Storage) -> int:
    """The number of segments in the log, by one listing.

    Raises:
        ArtifactCorrupt: one in the middle is missing.
    """
    found = {int(match[1]) for path in storage.list(FOLDER) if (match := _NAME.fullmatch(path))}
    count = max(found, default=-1) + 1
    for number in range(count):
        if number not in found and not storage.exists(segment_file(number)):  # created while the list was made
            raise ArtifactCorrupt(
                f"{segment_file(number)} of {storage.uri} is missing, but there are later ones: restore it from a "
                "backup; without it acknowledged events are lost"
            )
    return count


def _damaged(number: int, what: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(f"{segment_file(number)}{what}: the segment is damaged, restore it from a backup")
