"""What users did, and which of it a prompt may show: the leak rules of prompts live here.

A request has a moment, from which on nothing of anybody is shown: the earlier of its `as_of` and the time of the user's
interaction at its `as_of_position`. Target user: before the moment and the position, never one of the candidates.
Similar users: training interactions before the moment. Both: the most recent ones, oldest first.

The columns lie in Arrow files that all processes of a machine share; events, which happened since, are kept beside
them, some 600 bytes each. They are shown to nobody but their user.

Shape legend: `N` interactions, `U` users, `I` items, `H` interactions of one user.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.mapped import SortedIds, open_mapped, write_mapped
from optirag_core.data.schema import INTERACTIONS, require_columns
from optirag_core.errors import DataError

FILES = ("history_users.arrow", "history_items.arrow", "history.arrow")

LATEST = 2**63 - 1
"""Behind any time, in microseconds."""


@dataclass(frozen=True)
class Shown:
    """One interaction as the prompt shows it."""

    item_id: str
    rating: float


@dataclass(frozen=True)
class Event:
    """One interaction that happened after the files were written."""

    shown: Shown
    time: int  # microseconds since 1970, UTC; where there are no times 0
    position: int  # in the user's order of arrival


INLINE = -1
"""Position of an entry that a single call knows of: no position hides it."""


@dataclass(frozen=True)
class Past:
    """Which past a request may know; `Histories.past` makes it."""

    user_id: str | None  # the target user
    moment: int | None  # of everybody, what lies before it, in microseconds since 1970 (UTC); None: all
    position: int | None  # of the target user, what lies before it, too
    hide: Collection[str]  # items that the target user's past does not show


class Histories:
    """All known interactions, by user; make one with `of` or `open`."""

    def __init__(self, users: pa.RecordBatch, items: pa.RecordBatch, interactions: pa.RecordBatch) -> None:
        """
        Args:
            users: [U] user_id, ascending, and first, the row of the user's first interaction.
            items: [I] item_id, ascending.
            interactions: [N] item (a row of `items`), rating, position, in_train and, where all have one, time; by user
                and position.
        """
        self._batches = (users, items, interactions)
        self._user_ids, self._item_ids = SortedIds(users["user_id"]), SortedIds(items["item_id"])
        self._first = users["first"].to_numpy()  # [U]
        columns = {name: interactions[name].to_numpy() for name in interactions.schema.names}
        self._items, self._ratings = columns["item"], columns["rating"]  # [N]
        self._positions, self._in_train = columns["position"], columns["in_train"].view(bool)  # [N]
        self._times = columns.get("time")  # [N] microseconds since 1970, UTC
        self._events: dict[str, list[Event]] = {}

    @classmethod
    def of(cls, interactions: pa.Table) -> Self:
        """Histories of a table of `INTERACTIONS`, rows in any order.

        Raises:
            DataError: a column is missing or of another type.
        """
        table = require_columns(interactions, INTERACTIONS, "interactions")
        user_ids, item_ids = SortedIds.of(table["user_id"]), SortedIds.of(table["item_id"])
        user, item = _rows_of(table["user_id"], user_ids), _rows_of(table["item_id"], item_ids)  # [N]
        position = table["position"].to_numpy()
        order = np.lexsort((position, user))
        columns = {
            "item": item[order],
            "rating": table["rating"].to_numpy()[order],
            "position": position[order],
            "in_train": pc.equal(table["split"], "train").to_numpy()[order].view(np.uint8),
        }
        if not table["event_time"].null_count:
            columns["time"] = table["event_time"].cast(pa.int64()).to_numpy()[order]
        first = np.searchsorted(user[order], np.arange(len(user_ids)))
        return cls(
            pa.record_batch({"user_id": user_ids.array, "first": first}),
            pa.record_batch({"item_id": item_ids.array}),
            pa.record_batch({name: pa.array(column) for name, column in columns.items()}),
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `save` wrote; all processes of a machine share its memory."""
        return cls(*(open_mapped(folder / name) for name in FILES))

    def save(self, folder: Path) -> None:
        """Write the columns into an existing local folder; recent events are not among them."""
        for name, batch in zip(FILES, self._batches, strict=True):
            write_mapped(batch, folder / name)

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time, so that `as_of` means something."""
        return self._times is not None

    def append(self, user_id: str, item_id: str, rating: float, time: int | None) -> Event:
        """Note what a user has done; what arrives late takes its place by time, its position is the next one.

        Args:
            time: microseconds since 1970, UTC; None where the data has no times, and not used there.

        Raises:
            DataError: the event has no time, but all other interactions have one.
        """
        if not self.timed:
            time = 0
        elif time is None:
            raise DataError(f"an event of user {user_id!r} has no time, all interactions of this data have one: add it")
        events = self._events.setdefault(user_id, [])
        last = events[-1].position if events else max(self._positions[self._rows(user_id)][-1:].tolist(), default=-1)
        events.append(Event(Shown(item_id, float(rating)), time, last + 1))
        return events[-1]

    def continued(self, user_id: str, entries: Sequence[Shown]) -> Self:
        """The same histories, in which this user has just done more, oldest first: for a single call."""
        longer = copy(self)
        inline = [Event(shown, LATEST, INLINE) for shown in entries]
        longer._events = {user_id: [*self._events.get(user_id, ()), *inline]}
        return longer

    def past(
        self, user_id: str | None, *, as_of: int | None = None, as_of_position: int | None = None,
        hide: Collection[str] = (),
    ) -> Past:  # fmt: skip
        """The past that a request of this user may know.

        Args:
            as_of: microseconds since 1970 (UTC); nothing at or after it is shown.
            as_of_position: neither is anything of the user at or after this position, nor, where there are times, of
                anybody at or after its time. Beyond the user's last interaction, or of an unknown user, it hides
                nothing.
            hide: the candidates: never shown in the user's own past, whenever they happened.
        """
        at_position = None if as_of_position is None else self._time_at(user_id, as_of_position)
        moments = [moment for moment in (as_of, at_position) if moment is not None and self.timed]
        return Past(user_id, min(moments, default=None), as_of_position, hide)

    def of_target(self, past: Past, *, limit: int) -> list[Shown]:
        """The target user's last `limit` interactions; of an item that was rated again, the latest."""
        room = limit + len(past.hide) + len(self._arrived(past.user_id))
        return [shown for shown, _ in self._of_target(past, room)][-limit:]

    def events_of(self, past: Past) -> list[Shown]:
        """The target user's events before the request, in the order of arrival."""
        return [event.shown for event in self._events_before(past)]

    def training_items(self, user_id: str | None) -> list[str]:
        """Items of a user's training interactions, all of them."""
        rows = self._rows(user_id)
        return [self._item_ids[item] for item in self._items[rows][self._in_train[rows]].tolist()]

    def of_similar(self, user_id: str, past: Past, *, limit: int) -> list[Shown]:
        """A similar user's last `limit` training interactions."""
        return self._show(self._train_rows(user_id, past)[-limit:])

    def mean_of_target(self, past: Past) -> float | None:
        """Mean of the target user's training ratings and events; None where there are none."""
        if self._events_before(past):
            ratings = [shown.rating for shown, counts in self._of_target(past, len(self._items)) if counts]
            return sum(ratings) / len(ratings) if ratings else None
        rows = self._rows_of_target(past)
        rows = rows[self._in_train[rows]]
        hidden = [self._item_ids.row(item_id) for item_id in past.hide]
        return self._mean(rows[~np.isin(self._items[rows], hidden)])

    def mean_of_similar(self, user_id: str, past: Past) -> float | None:
        """Mean of a similar user's training ratings; None where there are none."""
        return self._mean(self._train_rows(user_id, past))

    def popularity(self, item_ids: pa.Array) -> np.ndarray:
        """Training interactions of each of the items: [I']."""
        counts = np.bincount(self._items[self._in_train], minlength=len(self._item_ids))
        return np.append(counts, 0)[_rows_of(item_ids, self._item_ids)]  # row -1, of an unknown item, counts 0

    def activity(self, user_ids: pa.Array) -> np.ndarray:
        """Training interactions of each of the users: [U']."""
        counts = np.add.reduceat(self._in_train, self._first, dtype=np.int64)  # every user here has an interaction
        return np.append(counts, 0)[_rows_of(user_ids, self._user_ids)]

    def users(self, prefix: str, limit: int) -> list[str]:
        """The first ids of users with interactions or events that begin like this."""
        start = bisect_left(self._user_ids, prefix)
        of_files = islice(takewhile(lambda user_id: user_id.startswith(prefix), self._ids_from(start)), limit)
        new = [user_id for user_id in self._events if user_id.startswith(prefix)]
        return sorted({*of_files, *new})[:limit]

    def _ids_from(self, start: int) -> Iterator[str]:
        return (self._user_ids[row] for row in range(start, len(self._user_ids)))

    def _rows(self, user_id: str | None) -> slice:
        """Where the user's interactions lie."""
        user = self._user_ids.row(user_id)
        if user < 0:
            return slice(0, 0)
        end = self._first[user + 1] if user + 1 < len(self._first) else len(self._items)
        return slice(int(self._first[user]), int(end))

    def _arrived(self, user_id: str | None) -> Sequence[Event]:
        """The user's events, in the order of arrival."""
        return () if user_id is None else self._events.get(user_id, ())

    def _time_at(self, user_id: str | None, position: int) -> int | None:
        """Time of the user's interaction at a position; None beyond the last, and where there are no times."""
        if self._times is None:
            return None
        rows = self._rows(user_id)
        row = rows.start + int(np.searchsorted(self._positions[rows], position))
        if row < rows.stop:
            return int(self._times[row])
        return next((event.time for event in self._arrived(user_id) if event.position >= position), None)

    def _of_target(self, past: Past, room: int) -> list[tuple[Shown, bool]]:
        """What may be shown of the last `room` rows and all events, each item once, and whether it counts in means."""
        rows = self._rows_of_target(past)[-room:]
        times = [0] * len(rows) if self._times is None else self._times[rows].tolist()
        entries = [*zip(times, self._show(rows), self._in_train[rows].tolist(), strict=True)]
        entries += [(event.time, event.shown, True) for event in self._events_before(past)]
        latest: dict[str, tuple[Shown, bool]] = {}
        for _, shown, counts in sorted(entries, key=lambda entry: entry[0]):  # at one moment what arrived last is last
            if shown.item_id not in past.hide:
                latest.pop(shown.item_id, None)
                latest[shown.item_id] = shown, counts
        return [*latest.values()]

    def _events_before(self, past: Past) -> list[Event]:
        return [
            event
            for event in self._arrived(past.user_id)
            if event.position == INLINE
            or (
                (past.moment is None or event.time < past.moment)
                and (past.position is None or event.position < past.position)
            )
        ]

    def _rows_of_target(self, past: Past) -> np.ndarray:
        """[H'] rows of the target user's interactions before the request, candidates among them."""
        rows = self._rows_before(past.user_id, past.moment)
        if past.position is not None:
            rows = rows[self._positions[rows] < past.position]
        return rows

    def _train_rows(self, user_id: str, past: Past) -> np.ndarray:
        rows = self._rows_before(user_id, past.moment)
        return rows[self._in_train[rows]]

    def _rows_before(self, user_id: str | None, moment: int | None) -> np.ndarray:
        rows = self._rows(user_id)
        if moment is None:
            return np.arange(rows.start, rows.stop)
        assert self._times is not None, "only data with times has moments"
        return rows.start + np.flatnonzero(self._times[rows] < moment)

    def _mean(self, rows: np.ndarray) -> float | None:
        return float(self._ratings[rows].mean(dtype=np.float64)) if len(rows) else None

    def _show(self, rows: np.ndarray) -> list[Shown]:
        return [
            Shown(self._item_ids[item], rating)
            for item, rating in zip(self._items[rows].tolist(), self._ratings[rows].tolist(), strict=True)
        ]


def _rows_of(column: pa.ChunkedArray | pa.Array, ids: SortedIds) -> np.ndarray:
    """[N] int32, each value's row among the ids, -1 for one that is not there."""
    rows = pc.fill_null(pc.index_in(column.cast(pa.large_string()), value_set=ids.array), -1)
    return rows.to_numpy(zero_copy_only=False) if isinstance(rows, pa.Array) else rows.to_numpy()
