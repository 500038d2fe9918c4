"""What follows events: histories, evidence, and users' vectors, each beside files that stay as they are.

Shape legend: `D` width of the vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from optirag_core.data.histories import LATEST, Histories, Past, Shown
from optirag_core.events.event import UserEvent
from optirag_core.evidence.updated import Rated, UpdatedEvidence
from optirag_core.prompting.assembly import HistoryEntry, Request
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.index import Neighbour
from optirag_core.retrieval.updated_index import UpdatedIndex


@dataclass(frozen=True)
class Asking:
    """The similar users of one request's user: what the assembler asks for (`prompting.assembly.Neighbours`)."""

    index: UpdatedIndex
    vector: np.ndarray | None  # [D]; None: a cold start
    updated: bool  # by the newest vectors of the others, or by those that were trained

    def __contains__(self, user_id: str | None) -> bool:
        return self.vector is not None

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> list[list[Neighbour]]:
        if self.vector is None:
            return [[] for _ in user_ids]
        return [self.index.similar_to(self.vector, k, without=user_id, updated=self.updated) for user_id in user_ids]


@dataclass(frozen=True)
class Known:
    """All that is known now, or all of it to one call; not safe to be changed by one thread while another asks."""

    histories: Histories
    evidence: UpdatedEvidence
    index: UpdatedIndex
    fold_in: FoldIn | None  # None where vectors cannot be made without training: every user keeps the trained one
    like_threshold: np.float32  # a rating above it counts as liked
    tells_more: bool = False  # the call has entries of its own

    def past(self, request: Request) -> Past:
        """What the request may know."""
        return self.histories.past(request.user_id, as_of=request.as_of, as_of_position=request.as_of_position)

    def take_in(self, events: Sequence[UserEvent]) -> None:
        """Events of items that are known; each has a time where all interactions have one."""
        append, timed = self.histories.append, self.histories.timed
        arrived = [append(event.user_id, event.item_id, event.rating, event.time) for event in events]
        orders = [each.time if timed else each.position for each in arrived]
        self.evidence.add(
            [self._rated(event.user_id, event, order) for event, order in zip(events, orders, strict=True)]
        )
        for user_id in {event.user_id for event in events}:
            if (vector := self._folded(self.histories.past(user_id))) is not None:
                self.index.put(user_id, vector)

    def with_entries(self, request: Request, entries: Sequence[HistoryEntry]) -> Self:
        """What is known to a request that tells of these entries of its own; nothing is changed here.

        Args:
            entries: of items that are known; at or after the request's moment they say nothing.
        """
        past, timed, user_id = self.past(request), self.histories.timed, request.user_id
        moment = LATEST if past.moment is None else past.moment
        before = [entry for entry in entries if entry.time is None or entry.time < moment]
        if user_id is None or not before:
            return self
        rated = [self._rated(user_id, entry, 0) for entry in before]
        shown = [Shown(entry.item_id, float(entry.rating)) for entry in before]
        return replace(
            self,
            histories=self.histories.continued(user_id, shown),
            evidence=self.evidence.continued(rated, past.moment if timed else past.position),
            tells_more=True,
        )

    def asking(self, request: Request) -> Asking:
        """Whom the request's user is similar to."""
        now = request.as_of is None and request.as_of_position is None
        if now and not self.tells_more:
            return Asking(self.index, self.index.vector(request.user_id), updated=True)
        vector = self._folded(self.past(request))
        return Asking(self.index, self.index.trained(request.user_id) if vector is None else vector, updated=now)

    def _rated(self, user_id: str, entry: UserEvent | HistoryEntry, order: int) -> Rated:
        liked = np.float32(entry.rating) > self.like_threshold
        return Rated(user_id, entry.item_id, entry.rating, int(liked), order)

    def _folded(self, past: Past) -> np.ndarray | None:
        """The user's vector with all events of this past; None where they say nothing that training has not seen."""
        done = {shown.item_id for shown in self.histories.events_of(past)}
        if self.fold_in is None or not done:
            return None
        trained = self.histories.training_items(past.user_id)
        new = done.difference(trained)
        return self.fold_in.vector({*trained, *new}) if self.fold_in.vector(new) is not None else None
