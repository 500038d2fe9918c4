"""Items worth asking about, for users who come without candidates: the retriever's own ranking.

Shape legend: `U` users, `I` items, `C` users of a chunk, `D` embedding width, `k` candidates.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from optirag_core.data.histories import Histories
from optirag_core.retrieval.vectors import load_vectors

SCORES_PER_CHUNK = 2**23
"""Bounds the [C, I] matrix of scores to 32 MiB, of which numpy holds a copy or two."""

ALL = np.iinfo(np.int32).max
"""Longer than any history."""


class Candidates:
    """Items by the inner product of the user's and the item's vector, without what the user has already met.

    Only items with training interactions have a vector and are ranked. A user without training interactions gets the
    most popular of them.
    """

    def __init__(
        self, user_ids: pa.Array, users: Tensor, item_ids: pa.Array, items: Tensor, histories: Histories
    ) -> None:
        """
        Args:
            user_ids: [U].
            users: [U, D] float32.
            item_ids: [I].
            items: [I, D] float32, with their lengths.
            histories: of all splits.
        """
        by_id = pc.sort_indices(item_ids)  # so that of two equal scores the lower row has the lower id
        self._item_ids = np.array(item_ids.take(by_id).to_pylist(), dtype=object)  # [I]
        self._items = items.numpy()[by_id.to_numpy()]  # [I, D]
        self._users = users.numpy()  # [U, D]
        self._user_row = {user_id: row for row, user_id in enumerate(user_ids.to_pylist())}
        self._item_row = {item_id: row for row, item_id in enumerate(self._item_ids)}
        self._popular = np.argsort(-histories.popularity(item_ids.take(by_id)), kind="stable")  # [I]
        self._histories = histories
        longest = np.linalg.norm(self._items, axis=1).max(initial=0.0)
        # |error| of a float32 inner product of D terms is below D * epsilon * |u| * |v|; twice that for two of them
        self._tolerance = 2 * self._items.shape[1] * np.finfo(np.float32).eps * longest  # times the user's length

    @classmethod
    def load(cls, retriever: Path, dataset: Path) -> Self:
        """Open the files of a retriever artifact, and those of the data set artifact that it was made from.

        Raises:
            ArtifactCorrupt: ids and vectors disagree in number.
        """
        return cls(*load_vectors(retriever, "user"), *load_vectors(retriever, "item"), Histories.open(dataset))

    def top(
        self,
        user_ids: Sequence[str | None],
        k: int,
        *,
        as_of: Sequence[int | None] | None = None,
        as_of_position: Sequence[int | None] | None = None,
    ) -> list[list[str]]:
        """The k best items of each user, best first; equal scores by item id.

        Left out is what a prompt of the same request may show of the user: all interactions, or those before its
        `as_of` and `as_of_position`. The answer for a user does not depend on who else is asked about.

        Args:
            user_ids: any; null has no candidates.
            k: the most to return; fewer where fewer items are left.
            as_of: microseconds since 1970 (UTC), one per user; null: all interactions are left out.
            as_of_position: the same in the user's own order.
        """
        nothing = [None] * len(user_ids)
        asked = zip(user_ids, as_of or nothing, as_of_position or nothing, strict=True)
        seen = [self._seen(*request) for request in asked]
        rows = [self._user_row.get(user_id, -1) for user_id in user_ids]
        known = [number for number, row in enumerate(rows) if row >= 0]
        ranked = self._ranked([rows[number] for number in known], [seen[number] for number in known], k)
        best = [next(ranked) if row >= 0 else self._most_popular(met, k) for row, met in zip(rows, seen, strict=True)]
        return [
            [] if user_id is None else self._item_ids[items].tolist()
            for user_id, items in zip(user_ids, best, strict=True)
        ]

    def near(self, vector: np.ndarray | None, seen: Collection[str], k: int) -> list[str]:
        """The k best items of a vector, as `top` ranks them.

        Args:
            vector: [D] float32 of length 1; None ranks by popularity.
            seen: items that are left out.
        """
        met = [self._item_row[item_id] for item_id in seen if item_id in self._item_row]
        if vector is None:
            return self._item_ids[self._most_popular(met, k)].tolist()
        scores = self._items @ vector  # [I]
        scores[met] = -np.inf
        return self._item_ids[self._best(vector, scores, min(k, len(scores) - len(set(met))))].tolist()

    def _seen(self, user_id: str | None, as_of: int | None, as_of_position: int | None) -> list[int]:
        if user_id is None:
            return []
        past = self._histories.past(user_id, as_of=as_of, as_of_position=as_of_position)
        shown = self._histories.of_target(past, limit=ALL)
        return [self._item_row[entry.item_id] for entry in shown if entry.item_id in self._item_row]

    def _ranked(self, rows: Sequence[int], seen: Sequence[Sequence[int]], k: int) -> Iterator[np.ndarray]:
        size = max(1, SCORES_PER_CHUNK // max(1, len(self._items)))
        for start in range(0, len(rows), size):
            users = self._users[rows[start : start + size]]  # [C, D]
            scores = users @ self._items.T  # [C, I]
            for user, row, met in zip(users, scores, seen[start : start + size], strict=True):
                row[met] = -np.inf
                yield self._best(user, row, min(k, len(row) - len(set(met))))

    def _best(self, user: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
        """Rows of the k best items: whatever rounding could have put among them is computed anew in float64."""
        if k <= 0:
            return np.empty(0, np.int64)
        least = np.partition(scores, -k)[-k] - self._tolerance * np.linalg.norm(user)
        close = np.flatnonzero(scores >= least)  # at least k
        # a sum over the last axis, unlike a matrix product, gives each row the same bits whatever stands around it
        exact = (self._items[close] * user.astype(np.float64)).sum(axis=1)
        return close[np.lexsort((close, -exact))[:k]]

    def _most_popular(self, seen: Sequence[int], k: int) -> np.ndarray:
        first = self._popular[: k + len(seen)]
        return first[~np.isin(first, seen)][:k]
