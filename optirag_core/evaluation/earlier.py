"""How much of something had happened before a moment, by plain counting.

Audits compare with it, and so it shares no code with what they check.

Shapes: N interactions, n asked.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ALWAYS = np.iinfo(np.int64).max
"""An order behind all others: nothing is hidden."""


class Earlier:
    """Interactions of each user or item, by when they happened."""

    def __init__(self, interactions: pa.Table, column: str) -> None:
        """
        Args:
            interactions: `INTERACTIONS`; where not all have a time, the order is the user's own.
            column: user_id or item_id.
        """
        timed = not interactions["event_time"].null_count
        order = (interactions["event_time"].cast(pa.int64()) if timed else interactions["position"]).to_numpy()
        self._ids = pc.unique(interactions[column])
        self._orders, rank = np.unique(order, return_inverse=True)
        key = pc.index_in(interactions[column], value_set=self._ids).to_numpy().astype(np.int64)
        places = key * (len(self._orders) + 1) + rank
        sort = np.argsort(places)
        self._places = places[sort]
        self._ratings = np.r_[0.0, np.cumsum(interactions["rating"].to_numpy()[sort], dtype=np.float64)]

    def sums(self, ids: pa.ChunkedArray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] ids and orders -> [n] interactions strictly before them, and the sum of their ratings."""
        key = pc.fill_null(pc.index_in(ids, value_set=self._ids), -1).to_numpy().astype(np.int64)
        first = key * (len(self._orders) + 1)
        rank = np.searchsorted(self._orders, before)
        start, end = np.searchsorted(self._places, first), np.searchsorted(self._places, first + rank)
        start, end = (np.where(key < 0, 0, row) for row in (start, end))
        return end - start, self._ratings[end] - self._ratings[start]


def before_of(pairs: pa.Table, timed: bool, *, own: bool) -> np.ndarray:
    """[n] order from which on nothing is known to each request: of its own user, or of everybody else."""
    if timed:
        return pc.fill_null(pairs["as_of"].cast(pa.int64()), ALWAYS).to_numpy()
    positions = pc.fill_null(pairs["as_of_position"].cast(pa.int64()), ALWAYS).to_numpy()
    return positions if own else np.full(len(pairs), ALWAYS)
