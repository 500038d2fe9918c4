"""The index of similar users: cosine top-k over user vectors, by FAISS.

Shape legend: `U` users, `Q` query users, `D` embedding width, `k` neighbours, `c` candidates that FAISS returns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from optirag_core.data.mapped import SortedIds
from optirag_core.errors import ArtifactCorrupt, ConfigError
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.vectors import load_vectors

INDEX_FILE = "index.faiss"

SPARE_CANDIDATES = 16
"""Fetched beyond k + 1, so that rounding inside FAISS cannot push a true neighbour over the edge."""

QUERIES_PER_SEARCH = 4096
"""Bounds the gathered candidates [Q, c, D] to about 40 MiB at k = 4 and D = 64."""

PROBED_SHARE = 1 / 16
"""Share of an IVF index's lists that a query visits.

Finds 98 % of the true 4 neighbours of BookCrossing's 56,509 users in IVF512; FAISS's default of one list finds 61 %.
"""


class Neighbour(NamedTuple):
    """A similar user and the cosine of the angle between the two vectors."""

    user_id: str
    similarity: float


class UserIndex:
    """User vectors and the FAISS index over them; make one with `build` or `load`."""

    def __init__(self, user_ids: pa.LargeStringArray, embeddings: Tensor, index: Any) -> None:
        self.user_ids = SortedIds(user_ids)  # [U]
        self.embeddings = embeddings  # [U, D]
        self._index = index

    @classmethod
    def build(cls, user_ids: pa.Array, embeddings: Tensor, factory: str) -> Self:
        """Index the users' vectors.

        Args:
            user_ids: [U], ascending, distinct.
            embeddings: [U, D] float32, each of length 1.
            factory: FAISS factory string; "Flat" is exact, IVF and HNSW are approximate.

        Raises:
            ConfigError: FAISS is missing or installed twice, or the number of users is too small for such an index.
        """
        faiss = load_faiss()
        vectors = np.ascontiguousarray(embeddings.numpy(), dtype=np.float32)
        try:
            index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
        except RuntimeError as error:  # what FAISS raises for an unknown string and for too few vectors alike
            raise ConfigError(
                f"index.factory {factory!r} does not fit {len(vectors):,} users of width {vectors.shape[1]}: "
                f"use Flat, or one with fewer lists; FAISS says: {str(error).splitlines()[0][-200:]}"
            ) from None
        index.add(vectors)
        _probe_enough(faiss, index)
        ids = user_ids.cast(pa.large_string())
        assert pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False, "user ids are searched by bisection"
        return cls(ids, embeddings, index)

    def __contains__(self, user_id: str) -> bool:
        """Whether the user has training interactions; one who has none is a cold start."""
        return self.user_ids.row(user_id) >= 0

    def similar(self, user_id: str, k: int) -> list[Neighbour]:
        """The k most similar users of one user; see `similar_batch`."""
        return self.similar_batch([user_id], k)[0]

    def similar_batch(self, user_ids: Sequence[str], k: int) -> list[list[Neighbour]]:
        """The k most similar users of each user, most similar first, without the user.

        Similarities are computed anew from the vectors, one pair at a time, so that the answer does not depend on who
        else is in the batch. Equal similarities are ordered by the index's row. Where more users than FAISS returns
        are tied at the end of the list, which of them appear is FAISS's choice.

        Source: arXiv:2501.02173v2, algorithm 1, lines 16-18.

        Args:
            user_ids: any; one who is not in the index (no training interaction) gets an empty list.
            k: the most to return; fewer where the index holds fewer others.
        """
        rows = np.array([self.user_ids.row(user_id) for user_id in user_ids], dtype=np.int64)
        known = rows[rows >= 0]
        found = self._search(known, k) if k > 0 else iter([[]] * len(known))
        return [next(found) if row >= 0 else [] for row in rows]

    def save(self, folder: Path) -> None:
        """Write index.faiss into an existing local folder; the vectors stay where they came from."""
        load_faiss().write_index(self._index, str(folder / INDEX_FILE))

    @classmethod
    def load(cls, vectors: Path, folder: Path) -> Self:
        """Map an index and its vectors, so that all processes of a machine share their memory.

        Verify the files' hashes first: FAISS trusts what it reads.

        Args:
            vectors: folder of `save_vectors`.
            folder: of `save`.

        Raises:
            ArtifactCorrupt: the files disagree on the number or width of the vectors.
        """
        user_ids, embeddings = load_vectors(vectors, "user")
        faiss = load_faiss()
        index = faiss.read_index(str(folder / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC)
        if (index.ntotal, index.d) != tuple(embeddings.shape):
            raise ArtifactCorrupt(
                f"{folder / INDEX_FILE} holds {index.ntotal:,} vectors of width {index.d}, but user_embeddings are "
                f"{list(embeddings.shape)}; run train_retriever again"
            )
        return cls(user_ids, embeddings, index)

    def _search(self, rows: np.ndarray, k: int) -> Iterator[list[Neighbour]]:
        vectors = self.embeddings.numpy()
        num_candidates = min(k + 1 + SPARE_CANDIDATES, self._index.ntotal)
        for start in range(0, len(rows), QUERIES_PER_SEARCH):
            chunk = rows[start : start + QUERIES_PER_SEARCH]  # [Q]
            _, candidates = self._index.search(vectors[chunk], num_candidates)  # [Q, c], -1 where fewer were found
            similarities = np.einsum("qd,qcd->qc", vectors[chunk], vectors[candidates], dtype=np.float64)
            similarities[(candidates < 0) | (candidates == chunk[:, None])] = -np.inf
            order = np.lexsort((candidates, -similarities))[:, :k]  # [Q, c] -> [Q, k]
            yield from map(
                self._neighbours,
                np.take_along_axis(candidates, order, axis=1),
                np.take_along_axis(similarities, order, axis=1),
            )

    def _neighbours(self, rows: np.ndarray, similarities: np.ndarray) -> list[Neighbour]:
        return [
            Neighbour(self.user_ids[row], float(similarity))
            for row, similarity in zip(rows, similarities, strict=True)
            if similarity > -np.inf
        ]


def _probe_enough(faiss: Any, index: Any) -> None:
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = max(1, round(ivf.nlist * PROBED_SHARE))
