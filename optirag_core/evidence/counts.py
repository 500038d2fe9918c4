"""Rows by key: how many there are, how many are liked, and the sum of their stars; of all, or of those before an order.

Shape legend: `N` rows, `M` distinct keys, `P` distinct (key, order), `n` asked keys. An order is a rank in time or a
position; without orders P = M.
"""

from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from optirag_core.data.mapped import open_mapped, write_mapped

ORDER_BITS = 32
"""A place is a number: its key's row in the upper half, the order in the lower. One search finds both."""

COUNT, LIKED, STARS = 0, 1, 2
"""Rows of what `sums` returns."""


class Counts:
    """Running sums in files that are mapped: 16 bytes per key and 24 per place."""

    def __init__(self, keys: pa.RecordBatch, places: pa.RecordBatch) -> None:
        """
        Args:
            keys: [M + 1] key, ascending, and first, the key's first row in `places`; the last row is behind all keys.
            places: [P + 1] place, ascending, and count, liked and stars, summed over all rows up to it; the first row
                is in front of all places.
        """
        self._batches = (keys, places)
        self._keys, self._first = keys["key"].to_numpy()[:-1], keys["first"].to_numpy()
        self._places = places["place"].to_numpy()
        self._sums = [places[name].to_numpy() for name in ("count", "liked", "stars")]

    @classmethod
    def of(cls, keys: np.ndarray, labels: np.ndarray, stars: np.ndarray, orders: np.ndarray | None = None) -> Self:
        """
        Args:
            keys: [N] int64.
            labels: [N] 0 or 1.
            stars: [N].
            orders: [N] from 0 to 2**32 - 1, or None where only all rows of a key are asked for.
        """
        distinct, place = np.unique(keys, return_inverse=True)
        place = place.astype(np.int64) << ORDER_BITS
        if orders is not None:
            place |= orders
        sort = np.argsort(place, kind="stable")
        place = place[sort]
        last = np.append(np.flatnonzero(np.diff(place)), len(place) - 1)[: len(place)]  # row of the place in [N]
        place = place[last]
        first = np.searchsorted(place, np.arange(len(distinct) + 1) << ORDER_BITS) + 1
        sums = {
            "count": (last + 1).astype(np.int32),
            "liked": np.cumsum(labels[sort], dtype=np.int32)[last],
            "stars": np.cumsum(stars[sort], dtype=np.float64)[last],
        }
        behind, in_front = np.iinfo(np.int64).max, {"place": np.insert(place, 0, -1)}
        return cls(
            pa.record_batch({"key": np.append(distinct, behind), "first": first}),
            pa.record_batch(in_front | {name: np.insert(running, 0, 0) for name, running in sums.items()}),
        )

    @classmethod
    def open(cls, folder: Path, name: str) -> Self:
        """Map what `save` wrote; all processes of a machine share its memory."""
        return cls(*(open_mapped(folder / f"{name}_{part}.arrow") for part in ("keys", "places")))

    def save(self, folder: Path, name: str) -> None:
        """Write two files into an existing local folder."""
        for part, batch in zip(("keys", "places"), self._batches, strict=True):
            write_mapped(batch, folder / f"{name}_{part}.arrow")

    def sums(self, keys: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """
        Args:
            keys: [n]; of one that no row has, everything is 0.
            before: [n] orders; only rows strictly before them count. None: all rows.

        Returns:
            [3, n] float64: count, liked, stars.
        """
        if not len(self._keys):
            return np.zeros((3, len(keys)))
        row = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        start = self._first[row]
        end = self._first[row + 1] if before is None else np.searchsorted(self._places, row << ORDER_BITS | before)
        known = self._keys[row] == keys
        # the running sums of the last place in front of `start` and of `end`
        return np.stack([np.where(known, of[end - 1] - of[start - 1].astype(np.float64), 0.0) for of in self._sums])
