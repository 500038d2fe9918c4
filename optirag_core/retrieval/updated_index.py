"""An index whose users have gone on: their new vectors beside it, the old ones left out.

Shape legend: `R` users of the index with a new vector, `D` embedding width, `k` neighbours, `c` candidates.
"""

import numpy as np

from optirag_core.retrieval.index import SPARE_CANDIDATES, Neighbour, UserIndex

CAPACITY = 64
"""Vectors that there is room for at first; doubled when it is full."""


class UpdatedIndex:
    """A `UserIndex` and the vectors since; not safe to be changed by one thread while another asks.

    A user whom the index does not hold (unknown to training, or below `index.min_history`) has neighbours but is none:
    prompts show training interactions of similar users.
    """

    def __init__(self, index: UserIndex) -> None:
        self._index = index
        self._vectors: dict[str | None, np.ndarray] = {}
        self._place: dict[int, int] = {}  # row of a user of the index -> place of the new vector
        self._rows = np.empty(CAPACITY, np.int64)
        self._new = np.empty((CAPACITY, index.embeddings.shape[1]), np.float32)

    def trained(self, user_id: str | None) -> np.ndarray | None:
        """The user's vector as it was trained: [D]; None without training interactions."""
        row = self._index.user_ids.row(user_id)
        return self._index.embeddings[row].numpy() if row >= 0 else None

    def vector(self, user_id: str | None) -> np.ndarray | None:
        """The user's newest vector: [D]; None where there is none."""
        new = self._vectors.get(user_id)
        return self.trained(user_id) if new is None else new

    def put(self, user_id: str, vector: np.ndarray) -> None:
        """Replace a user's vector, or give a new user one.

        Args:
            vector: [D] float32 of length 1.
        """
        self._vectors[user_id] = vector
        row = self._index.user_ids.row(user_id)
        if (
            row < 0
            or self._index.rows[min(int(np.searchsorted(self._index.rows, row)), len(self._index.rows) - 1)] != row
        ):
            return
        place = self._place.setdefault(row, len(self._place))
        if place == len(self._rows):
            self._rows, self._new = np.resize(self._rows, 2 * place), np.resize(self._new, (2 * place, len(vector)))
        self._rows[place], self._new[place] = row, vector

    def similar_to(
        self, vector: np.ndarray, k: int, *, without: str | None = None, updated: bool = True
    ) -> list[Neighbour]:
        """The k users most similar to a vector, as `UserIndex.similar` ranks them.

        Args:
            vector: [D] float32 of length 1.
            without: a user who is left out.
            updated: False ranks all users by the vectors as they were trained.
        """
        if k == 0:
            return []
        place = self._place if updated else {}
        own = self._index.user_ids.row(without)
        rows = self._index.rows_near(vector, k, without=place)  # [c]
        vectors = self._index.embeddings.numpy()[rows]  # [c, D]
        if place:
            near = self._nearest_new(vector, k)
            rows = np.concatenate([rows, self._rows[near]])  # [c] -> [c + c']
            vectors = np.concatenate([vectors, self._new[near]])
        similarities = np.einsum("qd,qcd->qc", vector[None], vectors[None], dtype=np.float64)[0]  # [c + c']
        similarities[rows == own] = -np.inf
        best = [each for each in np.lexsort((rows, -similarities))[:k] if rows[each] != own]
        return [Neighbour(self._index.user_ids[int(rows[each])], float(similarities[each])) for each in best]

    def _nearest_new(self, vector: np.ndarray, k: int) -> np.ndarray:
        """[c'] places of new vectors, so many that rounding pushes none of the k nearest over the edge."""
        similarities = self._new[: len(self._place)] @ vector  # [R]
        wanted = k + 1 + SPARE_CANDIDATES
        if len(similarities) <= wanted:
            return np.arange(len(similarities))
        return np.argpartition(-similarities, wanted)[:wanted]
