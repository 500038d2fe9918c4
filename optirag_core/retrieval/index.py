"""The index of similar users: cosine top-k over user vectors, by FAISS.

Shape legend: `U` users, `M` of them whom the index holds, `Q` query users, `D` embedding width, `k` neighbours, `c`
candidates that FAISS returns.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from optirag_core.config.data import IndexSettings
from optirag_core.data.mapped import SortedIds, open_mapped, write_mapped
from optirag_core.errors import ArtifactCorrupt, ConfigError
from optirag_core.retrieval.faiss_index import filled_index
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.vectors import load_vectors

INDEX_FILE, ROWS_FILE = "index.faiss", "index_rows.arrow"

SPARE_CANDIDATES = 16
"""Fetched beyond k + 1, so that rounding inside FAISS cannot push a true neighbour over the edge."""

CANDIDATES_PER_SEARCH = 2**18
"""Bounds the gathered vectors [Q, c, D] to 64 MiB at D = 64."""


class Neighbour(NamedTuple):
    """A similar user and the cosine of the angle between the two vectors."""

    user_id: str
    similarity: float


class UserIndex:
    """User vectors and the FAISS index over them; make one with `build` or `load`."""

    def __init__(
        self, user_ids: pa.LargeStringArray, embeddings: Tensor, index: Any, rows: np.ndarray, candidates: int
    ) -> None:
        """
        Args:
            user_ids: [U], ascending, distinct.
            embeddings: [U, D] float32, each of length 1.
            index: of FAISS, over M of the vectors.
            rows: [M] int32, ascending: entry m of the index is user `rows[m]`.
            candidates: the least number that FAISS is asked for.
        """
        self.user_ids = SortedIds(user_ids)
        self.embeddings = embeddings
        self.rows = rows
        self._index = index
        self._candidates = candidates

    @classmethod
    def build(
        cls, user_ids: pa.Array, embeddings: Tensor, settings: IndexSettings, *,
        num_interactions: np.ndarray | None = None, seed: int = 0,
    ) -> Self:  # fmt: skip
        """Index the users' vectors.

        Args:
            user_ids: [U], ascending, distinct.
            embeddings: [U, D] float32, each of length 1.
            num_interactions: [U] training interactions, which `index.min_history` counts; default: all users suffice.
            seed: draws the vectors that train the index, where not all do.

        Raises:
            ConfigError: FAISS is missing or installed twice, sees no GPU, or cannot make such an index of these
                vectors; or no user has `index.min_history` interactions.
        """
        ids = user_ids.cast(pa.large_string())
        assert pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False, "user ids are searched by bisection"
        rows = np.arange(len(ids), dtype=np.int32)
        if num_interactions is not None:
            rows = rows[num_interactions >= settings.min_history]
            if len(rows) == 0:
                raise ConfigError(
                    f"index.min_history {settings.min_history} leaves none of {len(ids):,} users to be similar to "
                    f"others: lower it, the most active user has {num_interactions.max()} training interactions"
                )
        vectors = np.ascontiguousarray(embeddings.numpy(), dtype=np.float32)
        return cls(ids, embeddings, filled_index(vectors, rows, settings, seed=seed), rows, settings.candidates)

    def __contains__(self, user_id: str | None) -> bool:
        """Whether the user has training interactions; one who has none is a cold start."""
        return self.user_ids.row(user_id) >= 0

    def similar(self, user_id: str, k: int) -> list[Neighbour]:
        """The k most similar users of one user; see `similar_batch`."""
        return self.similar_batch([user_id], k)[0]

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> list[list[Neighbour]]:
        """The k most similar users of each user, most similar first, without the user.

        Similarities are computed anew from the vectors, one pair at a time, so that the answer does not depend on who
        else is in the batch. Equal similarities are ordered by the index's row. Where more users than FAISS returns
        are tied at the end of the list, which of them appear is FAISS's choice.

        Source: arXiv:2501.02173v2, algorithm 1, lines 16-18.

        Args:
            user_ids: any; one without training interactions gets an empty list, one below `index.min_history` does not.
            k: the most to return; fewer where the index holds fewer others.
        """
        rows = np.array([self.user_ids.row(user_id) for user_id in user_ids], dtype=np.int64)
        known = rows[rows >= 0]
        found = map(self._neighbours, *self.nearest(known, k))
        return [next(found) if row >= 0 else [] for row in rows]

    def nearest(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`similar_batch` in numbers.

        Args:
            rows: [Q] of the users that ask.

        Returns:
            [Q, k] rows of the similar users, and [Q, k] float64 similarities, descending; fewer columns where the index
            holds fewer users, and -inf where fewer were found.
        """
        if len(rows) * k == 0:
            return np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
        num_candidates = self._num_candidates(k)
        size = max(1, CANDIDATES_PER_SEARCH // num_candidates)
        parts = [self._ranked(rows[start : start + size], k, num_candidates) for start in range(0, len(rows), size)]
        found, similarities = (np.concatenate(column) for column in zip(*parts, strict=True))
        return found, similarities

    def rows_near(self, vector: np.ndarray, k: int, *, without: Container[int] = ()) -> np.ndarray:
        """Candidates for the k nearest of any vector: as many as `nearest` has ranked, however many are left out.

        Args:
            vector: [D] float32 of length 1.
            without: rows of users.

        Returns:
            [c] rows, in no order; fewer where the index finds no more: HNSW gives up after some hundred.
        """
        wanted = asked = self._num_candidates(k)
        while True:
            _, places = self._index.search(vector[None], asked)  # [1, asked], -1 where fewer were found
            found = self.rows[places[places >= 0]]
            kept = np.array([row for row in found.tolist() if row not in without], np.int64)
            if len(kept) >= wanted or len(found) < asked or asked == self._index.ntotal:
                return kept
            asked = min(2 * asked, self._index.ntotal)

    def _num_candidates(self, k: int) -> int:
        return min(max(k + 1 + SPARE_CANDIDATES, self._candidates), self._index.ntotal)

    def save(self, folder: Path) -> None:
        """Write the index into an existing local folder; the vectors stay where they came from."""
        load_faiss().write_index(self._index, str(folder / INDEX_FILE))
        facts = {"num_users": str(len(self.embeddings)), "candidates": str(self._candidates)}
        write_mapped(pa.record_batch({"row": pa.array(self.rows)}, metadata=facts), folder / ROWS_FILE)

    @classmethod
    def load(cls, vectors: Path, folder: Path) -> Self:
        """Map an index and its vectors, so that all processes of a machine share their memory.

        Verify the files' hashes first: FAISS trusts what it reads.

        Args:
            vectors: folder of `save_vectors`.
            folder: of `save`.

        Raises:
            ArtifactCorrupt: the files disagree on the number or width of the vectors, or an earlier version made them.
        """
        if not (folder / ROWS_FILE).is_file():
            raise ArtifactCorrupt(f"{folder} has no {ROWS_FILE}: an earlier version made it; run train_retriever again")
        user_ids, embeddings = load_vectors(vectors, "user")
        faiss = load_faiss()
        index = faiss.read_index(str(folder / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC)
        batch = open_mapped(folder / ROWS_FILE)
        num_users, candidates = (int(batch.schema.metadata[name]) for name in (b"num_users", b"candidates"))
        if index.ntotal != len(batch) or (num_users, index.d) != tuple(embeddings.shape):
            raise ArtifactCorrupt(
                f"{folder / INDEX_FILE} holds {index.ntotal:,} vectors of width {index.d}, {ROWS_FILE} {len(batch):,} "
                f"of {num_users:,} users, but user_embeddings are {list(embeddings.shape)}; run train_retriever again"
            )
        return cls(user_ids, embeddings, index, batch["row"].to_numpy(), candidates)

    def _ranked(self, asking: np.ndarray, k: int, num_candidates: int) -> tuple[np.ndarray, np.ndarray]:
        """The first k of what FAISS returns, by the similarity of the vectors: [Q] -> twice [Q, k]."""
        vectors = self.embeddings.numpy()
        _, places = self._index.search(vectors[asking], num_candidates)  # [Q, c], -1 where fewer were found
        candidates = np.where(places < 0, -1, self.rows[places])  # [Q, c] rows of the users
        similarities = np.einsum("qd,qcd->qc", vectors[asking], vectors[candidates], dtype=np.float64)
        similarities[(candidates < 0) | (candidates == asking[:, None])] = -np.inf
        order = np.lexsort((candidates, -similarities))[:, :k]  # [Q, c] -> [Q, k]
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(similarities, order, axis=1)

    def _neighbours(self, rows: np.ndarray, similarities: np.ndarray) -> list[Neighbour]:
        return [
            Neighbour(self.user_ids[row], float(similarity))
            for row, similarity in zip(rows, similarities, strict=True)
            if similarity > -np.inf
        ]
