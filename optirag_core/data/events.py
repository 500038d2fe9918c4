"""Events of the log as interactions of the next data set.

They come after everything that the publisher's files hold: at the end of a user's order, or by their times where the
data has times. What a user says of an item again replaces what was said before, as it does while the endpoint runs.
From there on they are like all other ratings, and the split's rules hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.schema import ARRIVAL, RATINGS, TIMESTAMP, USERS
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog
from optirag_core.storage.base import Storage


@dataclass(frozen=True)
class LoggedEvents:
    """What a log holds at one moment."""

    events: Sequence[UserEvent] = ()  # in the log's order, each event_id once
    until: int = 0  # the log's position behind them

    @classmethod
    def read(cls, storage: Storage) -> Self:
        """
        Raises:
            ArtifactCorrupt: a segment is damaged or missing.
        """
        events: list[UserEvent] = []
        log = EventLog(storage, events.extend)
        log.read()
        return cls(events, log.position)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What tells these events from others."""
        lines = sha256(b"\n".join(event.to_line() for event in self.events))
        return {"until": self.until, "sha256": lines.hexdigest()}

    def added_to(self, raw: RawDataset) -> RawDataset:
        """The data with the events behind all ratings, and with the users that are new.

        Events of items that the data lacks are skipped, since a prompt needs their titles, and so are events without a
        time where everything else has one. Both are counted.
        """
        items, timed = set(raw.items["item_id"].to_pylist()), raw.ratings["event_time"].null_count == 0
        known = [event for event in self.events if event.item_id in items]
        usable = [event for event in known if event.time is not None or not timed]
        before, kept = _latest(raw.ratings, usable, timed=timed)
        skipped = {
            "events_without_item": len(self.events) - len(known),
            "events_without_time": len(known) - len(usable),
        }
        reasons = ("of items that the data lacks: no title to show", "without a time: all other interactions have one")
        new_users = dict.fromkeys(event.user_id for event in kept)
        for user in raw.users["user_id"].to_pylist():
            new_users.pop(user, None)
        users = pa.concat_tables([raw.users, pa.table([list(new_users)], schema=USERS)], promote_options="default")
        rated = pa.concat_tables([before, _ratings(kept, timed=timed)], promote_options="default")
        return replace(
            raw,
            ratings=rated,
            users=users,
            warnings=(
                *raw.warnings,
                *(f"skipped {num:,} events {why}" for num, why in zip(skipped.values(), reasons, strict=True) if num),
            ),
            counts={
                **raw.counts, "num_ratings": len(rated), "num_users": len(users), "num_events": len(kept), **skipped,
            },
        )  # fmt: skip


def _latest(
    ratings: pa.Table, events: Sequence[UserEvent], *, timed: bool
) -> tuple[pa.Table, Sequence[UserEvent]]:  # fmt: skip
    """Of what a user says of one item the latest: by time, and where there is none or the same by the log's order."""
    moments = [event.time if timed else 0 for event in events]
    latest = {
        (events[number].user_id, events[number].item_id): number
        for number in sorted(range(len(events)), key=lambda number: (moments[number], number))
    }
    theirs = pc.is_in(ratings["user_id"], value_set=pa.array({user_id for user_id, _ in latest}, pa.string()))
    stays = np.ones(len(ratings), dtype=bool)
    times = ratings["event_time"].cast(pa.int64())
    for row in pc.indices_nonzero(theirs).to_pylist():
        pair = ratings["user_id"][row].as_py(), ratings["item_id"][row].as_py()
        if pair not in latest:
            continue
        if timed and times[row].as_py() > moments[latest[pair]]:
            del latest[pair]
        else:
            stays[row] = False
    return ratings.filter(pa.array(stays)), [events[number] for number in sorted(latest.values())]


def _ratings(events: Sequence[UserEvent], *, timed: bool) -> pa.Table:
    """`schema.RATINGS` and `ARRIVAL`."""
    columns = [
        pa.array([event.user_id for event in events], pa.string()),
        pa.array([event.item_id for event in events], pa.string()),
        pa.array([event.rating for event in events], pa.float32()),
        pa.array([event.time if timed else None for event in events], pa.int64()).cast(TIMESTAMP),
        pa.array(range(len(events)), pa.int64()),
    ]
    return pa.table(columns, schema=RATINGS.append(ARRIVAL))
