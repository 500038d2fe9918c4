"""The log of events: append-only, durable, shared by any number of processes without a coordinator.

    read:    segment n is there -> apply it, n + 1              not there: that is all
    append:  create segment n of what is new -> won: apply it   lost: apply the winner's, read, look again what is new

A process appends only at the number behind everything that it has read, so it knows every event_id before its own
segment, and none gets in twice. Calls that come while a segment is written are written together in the next one.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum

from optirag_core.errors import ArtifactCorrupt
from optirag_core.events.event import ErasedEvent, UserEvent
from optirag_core.events.segments import segment_bytes, segment_count, segment_events, segment_file
from optirag_core.storage.base import Storage

READERS = 16
"""Segments that are on their way at once when a log is opened: from a bucket one takes tens of milliseconds."""

PER_READER = 32
"""Segments that a thread reads in a row: handing over one at a time takes longer than to read it from a local disk."""


class Stored(Enum):
    """What became of an event."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # the same event is in the log already
    CONFLICT = "conflict"  # another event with this event_id is, or was and is erased; this one is not


@dataclass
class _Append:
    """A call that waits for its segment."""

    events: Sequence[UserEvent]
    outcomes: list[Stored] = field(default_factory=list)
    error: BaseException | None = None
    done: bool = False


class EventLog:
    """One process's view of a workspace's log; all methods may be called from any thread."""

    def __init__(self, storage: Storage, apply: Callable[[Sequence[UserEvent]], None], start: int = 0) -> None:
        """Nothing is read yet.

        Args:
            apply: gets the events of one segment after another, each event once, one call at a time. What it cannot
                use it must skip: where it raises, the log stands still before that segment.
            start: segments before this number are in the data set already: their event_ids count, and nothing else.
        """
        self._storage, self._apply, self._start = storage, apply, start
        self._position, self._opened = 0, False
        self._known: dict[bytes, bytes] = {}  # key of an event -> digest
        self._turn = threading.Lock()  # whoever holds it reads or writes the log
        self._waiting: list[_Append] = []
        self._queue = threading.Condition()  # of the calls that wait; one of them writes for all
        self._writing = False

    @property
    def position(self) -> int:
        """The number of segments that are read and applied."""
        return self._position

    def read(self) -> None:
        """Apply everything that the log holds by now; where nothing is new, this is one look at the storage.

        Raises:
            ArtifactCorrupt: a segment is damaged or missing.
            StorageError: the storage is out of reach.
        """
        with self._turn:
            self._read()

    def append(self, events: Sequence[UserEvent]) -> list[Stored]:
        """Store events; those that are new are durable and applied when this returns.

        After an error some or all may be stored: sent again they are duplicates, or stored now.

        Returns:
            What became of each.

        Raises:
            ArtifactCorrupt: a segment is damaged or missing.
            StorageError: the storage is out of reach.
        """
        mine = _Append(events)
        with self._queue:
            self._waiting.append(mine)
            self._queue.wait_for(lambda: mine.done or not self._writing)
            if not mine.done:
                self._writing, group, self._waiting = True, self._waiting, []
        if not mine.done:
            self._commit(group)
        if mine.error:
            raise mine.error
        return mine.outcomes

    def _commit(self, group: Sequence[_Append]) -> None:
        """Write the events of several calls as one segment."""
        try:
            with self._turn:
                if not self._opened:
                    self._read()
                outcomes = iter(self._store([event for call in group for event in call.events]))
            for call in group:
                call.outcomes = [next(outcomes) for _ in call.events]
        except BaseException as error:
            for call in group:
                call.error = error
            raise
        finally:
            with self._queue:
                for call in group:
                    call.done = True
                self._writing = False
                self._queue.notify_all()

    def _store(self, events: Sequence[UserEvent]) -> list[Stored]:
        while True:
            outcomes, new = self._sorted_out(events)
            if not new:
                return outcomes
            content = segment_bytes(new)
            there = self._storage.create(segment_file(self._position), content)
            if there == content:
                self._take(new)
                return outcomes
            self._take(segment_events(there, self._position))
            self._read()  # somebody is faster: catch up

    def _sorted_out(self, events: Sequence[UserEvent]) -> tuple[list[Stored], list[UserEvent]]:
        """What becomes of each event, and those that are new."""
        outcomes: list[Stored] = []
        new: list[UserEvent] = []
        seen: dict[bytes, bytes] = {}
        for event in events:
            digest = self._known.get(event.key) or seen.get(event.key)
            if digest is None:
                seen[event.key] = event.digest
                new.append(event)
                outcomes.append(Stored.STORED)
            else:
                outcomes.append(Stored.DUPLICATE if digest == event.digest else Stored.CONFLICT)
        return outcomes, new

    def _read(self) -> None:
        if not self._opened:
            self._open()
        while (content := self._storage.read(segment_file(self._position))) is not None:
            self._take(segment_events(content, self._position))

    def _open(self) -> None:
        """Read what is there so far, many segments at a time."""
        num_segments = segment_count(self._storage)
        if num_segments < self._start:
            raise ArtifactCorrupt(
                f"the data set holds the first {self._start} segments of the event log, but {self._storage.uri} has "
                f"{num_segments}: restore its folder events/, or make the data set again"
            )
        for content in self._fetched(self._position, num_segments):
            self._take(segment_events(content, self._position))
        self._opened = True

    def _fetched(self, first: int, end: int) -> Iterator[bytes]:
        """Contents of segments, in order; no more than `READERS * PER_READER` are held."""
        numbers = range(first, end)
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(numbers), READERS * PER_READER):
                ahead = numbers[start : start + READERS * PER_READER]
                parts = [ahead[at : at + PER_READER] for at in range(0, len(ahead), PER_READER)]
                for contents in readers.map(self._contents, parts):
                    yield from contents

    def _contents(self, numbers: Sequence[int]) -> list[bytes]:
        return [self._storage.read(segment_file(number)) or b"" for number in numbers]

    def _take(self, events: Sequence[UserEvent | ErasedEvent]) -> None:
        """Apply the segment at the log's position; of erased events the ids are noted."""
        if self._position >= self._start:
            self._apply([event for event in events if isinstance(event, UserEvent)])
        self._known.update((event.key, event.digest) for event in events)
        self._position += 1
