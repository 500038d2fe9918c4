"""Sums by key that more rows may be added to, each at its own order; `Counts` is the same of rows that stay.

Shape legend: `n` asked keys.
"""

from bisect import bisect_left, bisect_right

import numpy as np

Amounts = tuple[float, float, float]
"""count, liked, stars: in the order of `Counts.sums`. Negative ones take back what was added."""

NOTHING: Amounts = (0.0, 0.0, 0.0)


class RunningCounts:
    """Per key the orders and the sums up to each of them."""

    def __init__(self) -> None:
        self._orders: dict[int, list[int]] = {}
        self._sums: dict[int, list[Amounts]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, key: int, order: int, amounts: Amounts) -> None:
        """Count amounts from the order on; fast where no other order of the key is behind it."""
        orders, sums = self._orders.setdefault(key, []), self._sums.setdefault(key, [])
        place = bisect_right(orders, order)
        orders.insert(place, order)
        sums.insert(place, sums[place - 1] if place else NOTHING)
        for later in range(place, len(sums)):
            count, liked, stars = sums[later]
            sums[later] = count + amounts[0], liked + amounts[1], stars + amounts[2]

    def sum(self, key: int, before: int | None = None) -> Amounts:
        """`sums` of one key."""
        if (orders := self._orders.get(key)) is None:
            return NOTHING
        end = len(orders) if before is None else bisect_left(orders, before)
        return self._sums[key][end - 1] if end else NOTHING

    def sums(self, keys: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """
        Args:
            keys: [n]; of one that nothing was added to, everything is 0.
            before: [n] orders; only what was added strictly before them counts. None: all.

        Returns:
            [3, n] float64: count, liked, stars.
        """
        found = np.zeros((3, len(keys)))
        until = [None] * len(keys) if before is None else before.tolist()
        for place, key in enumerate(keys.tolist() if self._orders else ()):
            if key in self._orders:
                found[:, place] = self.sum(key, until[place])
        return found
