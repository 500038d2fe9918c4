"""Which interactions a prompt may show, and which never: the leak rules of prompts live here.

Target user: before the request's `as_of` and `as_of_position`, never one of the candidates. Similar users: training
interactions before `as_of`. Both: the most recent ones, oldest first.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import INTERACTIONS, require_columns


@dataclass(frozen=True)
class Shown:
    """One interaction as the prompt shows it."""

    item_id: str
    rating: float


class Histories:
    """All known interactions, by user; arrays share the table's row order (user_id, position)."""

    def __init__(self, interactions: pa.Table) -> None:
        table = require_columns(interactions, INTERACTIONS, "interactions")
        table = table.sort_by([("user_id", "ascending"), ("position", "ascending")])
        users = table["user_id"].to_numpy()
        starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.empty(0, dtype=np.int64)
        ends = np.append(starts, len(users))[1:]
        self._rows = {users[start]: (int(start), int(end)) for start, end in zip(starts, ends, strict=True)}
        self._items = table["item_id"].combine_chunks()
        self._ratings = table["rating"].to_numpy()
        self._positions = table["position"].to_numpy()
        self._in_train = pc.equal(table["split"], "train").to_numpy()
        times = table["event_time"].cast(pa.int64())
        self._times = None if times.null_count else times.to_numpy()  # microseconds since 1970, UTC

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time, so that `as_of` means something."""
        return self._times is not None

    def of_target(
        self, user_id: str, *, as_of: int | None, as_of_position: int | None, hide: Collection[str], limit: int
    ) -> list[Shown]:
        """The target user's last `limit` interactions before the request.

        Args:
            as_of: microseconds since 1970 (UTC); nothing at or after it is shown.
            as_of_position: nothing at or after this position of the user is shown.
            hide: the candidates: never shown, whenever they happened.
        """
        rows = self._before(user_id, as_of)
        if as_of_position is not None:
            rows = rows[self._positions[rows] < as_of_position]
        shown = self._show(rows[-(limit + len(hide)) :])
        return [entry for entry in shown if entry.item_id not in hide][-limit:]

    def of_similar(self, user_id: str, *, as_of: int | None, limit: int) -> list[Shown]:
        """A similar user's last `limit` training interactions before `as_of` (microseconds since 1970, UTC)."""
        rows = self._before(user_id, as_of)
        return self._show(rows[self._in_train[rows]][-limit:])

    def _before(self, user_id: str, as_of: int | None) -> np.ndarray:
        rows = np.arange(*self._rows.get(user_id, (0, 0)))
        if as_of is not None and self._times is not None:
            rows = rows[self._times[rows] < as_of]
        return rows

    def _show(self, rows: np.ndarray) -> list[Shown]:
        return [Shown(self._items[int(row)].as_py(), float(self._ratings[row])) for row in rows]
