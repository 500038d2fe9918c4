"""Evidence that follows events: what they add to the counts is kept beside the files, as counts are sums.

An item that a user rates again counts once, as the latest rating: the event adds the difference.
"""

from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import reduce
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
        self._layers: tuple[_Layer, ...] = (self._layer(),)

    def add(self, events: Sequence[Rated]) -> None:
        """Count events; one that is older than what is known of the same user and item counts nothing."""
        asked = self._of(events)
        known = self._in_files(asked, None)  # [3, N]
        earlier = self._in_files(asked, asked.before + 1)[COUNT]  # [N] not later than the event
        [layer] = self._layers
        for place, (event, keys) in enumerate(zip(events, self._keys_of(asked), strict=True)):
            own = keys[OWN][0]
            if event.order < layer.latest.get(own, ALWAYS) or earlier[place] < known[COUNT, place]:
                continue
            layer.latest[own] = event.order
            self._count(layer, keys, event, known[:, place], np.array(layer.counts[OWN].sum(own)), event.order)

    def continued(self, events: Sequence[Rated], moment: int | None) -> Self:
        """The same evidence with events of a single call, oldest first: they count at its moment, whatever their order.

        Args:
            moment: order from which on nothing else of the same user and item is known; None: all is.
        """
        longer = copy(self)
        longer._new_users = ChainMap({}, self._new_users)
        longer._layers = (*self._layers, self._layer())
        asked = longer._of(events)
        before = None if moment is None else np.full(len(events), moment)
        known = longer._in_files(asked, before)
        of_events, new = longer._layers
        for place, (event, keys) in enumerate(zip(events, longer._keys_of(asked), strict=True)):
            own = keys[OWN][0]
            so_far = np.add(of_events.counts[OWN].sum(own, moment), new.counts[OWN].sum(own))
            self._count(new, keys, event, known[:, place], so_far, ALWAYS)
        return longer

    def sums(self, pairs: pa.Table) -> list[np.ndarray]:
        """As those of `Evidence`, of files and events together."""
        known = self._asked(pairs)
        user = known.user.copy()
        for place in np.flatnonzero(user < 0):
            user[place] = self._new_users.get(pairs["user_id"][place].as_py(), -1)
        moments = self._moments(pairs) if self.timed else known.before
        asked = Asked(user, known.item, moments)
        used = [layer for layer in self._layers if len(layer.counts[OWN])]
        parts = [self.summed(self._counts, known), *(self.summed(layer.counts, asked) for layer in used)]
        return [reduce(np.add, columns) for columns in zip(*parts, strict=True)]

    def _count(
        self, layer: _Layer, keys: Sequence[Sequence[int]], event: Rated, in_files: np.ndarray,
        so_far: np.ndarray, order: int,
    ) -> None:  # fmt: skip
        """Add from an order on what the event says more than the files and earlier events of the same pair.

        Without times the order is the user's own and says nothing in everybody's counts, where all rows always count.
        """
        said = np.array([1.0, event.label, np.float32(event.rating)])
        amounts = tuple((said - in_files - so_far).tolist())
        for number, (counts, of) in enumerate(zip(layer.counts, keys, strict=True)):
            everybody = number % 2 == 0 and number != OWN
            for key in of:
                counts.add(key, ALWAYS if everybody and not self.timed else order, amounts)

    def _layer(self) -> _Layer:
        return _Layer(tuple(RunningCounts() for _ in self._counts))

    def _moments(self, pairs: pa.Table) -> np.ndarray:
        return pc.fill_null(pairs["as_of"].cast(pa.int64()), NEVER).to_numpy()

    def _of(self, events: Sequence[Rated]) -> Asked:
        """The events' pairs; new users get a row behind those of the files."""
        users = []
        for event in events:
            user = self._users.row(event.user_id)
            if user < 0:
                user = self._new_users.setdefault(event.user_id, len(self._users) + len(self._new_users))
            users.append(user)
        items, orders = [self._items.row(event.item_id) for event in events], [event.order for event in events]
        return Asked(*(np.array(column, np.int64) for column in (users, items, orders)))

    def _in_files(self, asked: Asked, before: np.ndarray | None) -> np.ndarray:
        """[3, N] of the files' rows of exactly these pairs: at most one each."""
        if before is not None and self._times is not None:
            before = np.searchsorted(self._times, before)
        return self._counts[OWN].sums(own_keys(asked, len(self._items)), before)

    def _keys_of(self, asked: Asked) -> list[list[list[int]]]:
        """[N] of each pair the keys of all counts."""
        found: list[list[list[int]]] = [[[] for _ in self._counts] for _ in asked.user]
        for number, keys in enumerate(self.keys(asked)):
            pairs = range(len(asked.user)) if keys.pair is None else keys.pair.tolist()
            for pair, everybody, user in zip(pairs, keys.everybody.tolist(), keys.user.tolist(), strict=True):
                found[pair][2 * number].append(everybody)
                found[pair][2 * number + 1].append(user)
        return found
