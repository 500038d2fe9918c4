"""Evidence that follows events: what they add to the counts is kept beside the files, as counts are sums.

An item that a user rates again counts once, as the latest rating: the event adds the difference.
"""

from collections import ChainMap
from collections.abc import MutableMapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.evidence.counts import COUNT
from optirag_core.evidence.evidence import OWN, Asked, Evidence, own_keys
from optirag_core.evidence.running import RunningCounts

ALWAYS = -(2**62)
"""An order before all moments."""

NEVER = np.iinfo(np.int64).max
"""An order behind all events."""


@dataclass(frozen=True)
class Rated:
    """An event as evidence counts it."""

    user_id: str
    item_id: str  # one of the items
    rating: float
    label: int
    order: int  # its time in microseconds since 1970 (UTC), or where there are no times its position


@dataclass(frozen=True)
class _Layer:
    """What some events add."""

    counts: tuple[RunningCounts, ...]  # [2 (A + 2)] as those of `Evidence`
    latest: dict[int, int] = field(default_factory=dict)  # own key -> order of the latest event


class UpdatedEvidence(Evidence):
    """`Evidence` of the files' rows and of events; not safe to be changed by one thread while another asks."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._new_users: MutableMapping[str, int] = {}  # rows behind those of the files
        self._layers = (self._layer(),)

    def add(self, event: Rated) -> None:
        """Count an event; one that is older than what is known of the same user and item counts nothing."""
        asked = self._of(event)
        [key] = own_keys(asked, len(self._items)).tolist()
        [layer] = self._layers
        if event.order < layer.latest.get(key, ALWAYS) or self._in_files(asked, event.order + 1) < self._in_files(
            asked
        ):
            return
        layer.latest[key] = event.order
        self._count(asked, event, np.array([NEVER]))

    def continued(self, events: list[Rated], moment: int | None) -> Self:
        """The same evidence with events of a single call, oldest first: they count at its moment, whatever their order.

        Args:
            moment: order from which on nothing else of the same user and item is known; None: all is.
        """
        longer = copy(self)
        longer._new_users = ChainMap({}, self._new_users)
        longer._layers = (*self._layers, self._layer())
        for event in events:
            longer._count(longer._of(event), event, np.array([NEVER if moment is None else moment]), ALWAYS)
        return longer

    def sums(self, pairs: pa.Table) -> list[np.ndarray]:
        """As those of `Evidence`, of files and events together."""
        known = self._asked(pairs)
        user = known.user.copy()
        for place in np.flatnonzero(user < 0):
            user[place] = self._new_users.get(pairs["user_id"][place].as_py(), -1)
        moments = self._moments(pairs) if self.timed else known.before
        asked = Asked(user, known.item, moments)
        parts = [super().sums(pairs), *(self.summed(layer.counts, asked) for layer in self._layers)]
        return [sum(columns) for columns in zip(*parts, strict=True)]

    def _layer(self) -> _Layer:
        return _Layer(tuple(RunningCounts() for _ in self._counts))

    def _moments(self, pairs: pa.Table) -> np.ndarray:
        return pc.fill_null(pairs["as_of"].cast(pa.int64()), NEVER).to_numpy()

    def _of(self, event: Rated) -> Asked:
        user = self._users.row(event.user_id)
        if user < 0:
            user = self._new_users.setdefault(event.user_id, len(self._users) + len(self._new_users))
        return Asked(np.array([user]), np.array([self._items.row(event.item_id)]), np.array([event.order]))

    def _count(self, asked: Asked, event: Rated, before: np.ndarray, order: int | None = None) -> None:
        """Add to the newest layer what the event says more than is known before a moment of the same pair.

        Args:
            order: instead of the event's.
        """
        order = event.order if order is None else order
        known = self._in_files_sums(asked, before)
        for layer in self._layers:
            known = known + layer.counts[OWN].sums(own_keys(asked, len(self._items)), before)
        amounts = tuple((np.array([1.0, event.label, np.float32(event.rating)]) - known[:, 0]).tolist())
        counts = self._layers[-1].counts
        for everybody, user, keys in zip(counts[::2], counts[1::2], self.keys(asked), strict=True):
            for counted, of in ((everybody, keys.everybody), (user, keys.user)):
                for key in of.tolist():
                    counted.add(key, order, amounts)

    def _in_files(self, asked: Asked, before: int = NEVER) -> float:
        """Rows of exactly this pair in the files."""
        return self._in_files_sums(asked, np.array([before]))[COUNT, 0]

    def _in_files_sums(self, asked: Asked, before: np.ndarray) -> np.ndarray:
        """[3, 1]"""
        orders = np.searchsorted(self._times, before) if self.timed else np.minimum(before, np.iinfo(np.int32).max)
        return self._counts[OWN].sums(own_keys(asked, len(self._items)), orders)
