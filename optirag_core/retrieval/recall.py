"""What an index finds of the true nearest users, and how fast, against exact search on the same vectors.

Shape legend: `U` users, `M` users that the index holds, `Q` query users, `D` embedding width, `k` neighbours.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from optirag_core.config.data import IndexSettings
from optirag_core.errors import ConfigError
from optirag_core.retrieval.faiss_index import VECTORS_PER_CHUNK
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.index import UserIndex

K = 10

MAX_QUERIES = 1000
"""More users are sampled down: the standard error of a recall of 0.9 is then at most 0.01."""


def measured(index: UserIndex, *, seed: int = 0) -> dict[str, float | int]:
    """Recall@10 of an index, and queries per second of the index and of exact search, one batch in the same threads.

    Args:
        seed: draws `MAX_QUERIES` of all users where there are more.

    Returns:
        num_users, num_indexed, recall_at_10, queries_per_s, exact_queries_per_s.
    """
    vectors = index.embeddings.numpy()
    queries = np.arange(len(vectors))
    if len(queries) > MAX_QUERIES:
        queries = np.sort(np.random.default_rng(seed).choice(queries, MAX_QUERIES, replace=False))
    started = time.perf_counter()
    exact = exact_similarities(vectors, index.rows, queries, K)
    between = time.perf_counter()
    _, found = index.nearest(queries, K)
    ended = time.perf_counter()
    return {
        "num_users": len(vectors),
        "num_indexed": len(index.rows),
        f"recall_at_{K}": recall(found, exact, tolerance=vectors.shape[1] * np.finfo(np.float32).eps),
        "queries_per_s": len(queries) / (ended - between),
        "exact_queries_per_s": len(queries) / (between - started),
    }


def recall(found: np.ndarray, exact: np.ndarray, tolerance: float) -> float:
    """Share of the true neighbours that were found; of equally similar users each counts as the other.

    Args:
        found: [Q, k] similarities of what the index found, distinct users; -inf where it found fewer.
        exact: [Q, k] similarities of the true neighbours, -inf where there are fewer.
        tolerance: similarities that differ by less are equal; float32 products of D terms differ by D epsilon.

    Returns:
        In [0, 1]; 1 where nobody has a neighbour.
    """
    least = exact.min(axis=1, where=exact > -np.inf, initial=np.inf)  # [Q] of the last true neighbour
    num_true = np.count_nonzero(exact > -np.inf)
    return float(np.count_nonzero(found >= least[:, None] - tolerance) / num_true) if num_true else 1.0


def exact_similarities(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Similarities of the k nearest users by exhaustive search, chunk by chunk.

    Args:
        vectors: [U, D] float32, each of length 1.
        rows: [M] users among whom to search.
        queries: [Q] users that ask; none is a neighbour of itself.

    Returns:
        [Q, k] float32, descending; -inf where there are fewer others.
    """
    faiss = load_faiss()
    best = faiss.ResultHeap(len(queries), k + 1, keep_max=True)
    for start in range(0, len(rows), VECTORS_PER_CHUNK):
        chunk = rows[start : start + VECTORS_PER_CHUNK]
        found = faiss.knn(vectors[queries], vectors[chunk], min(k + 1, len(chunk)), faiss.METRIC_INNER_PRODUCT)
        best.add_result(found[0], chunk[found[1]].astype(np.int64))
    best.finalize()
    others = (best.I >= 0) & (queries[:, None] != best.I)  # [Q, k+1]
    return -np.sort(np.where(others, -best.D, np.inf), axis=1)[:, :k]


def require_recall(metrics: Mapping[str, Any], settings: IndexSettings) -> None:
    """
    Args:
        metrics: of `measured`.

    Raises:
        ConfigError: the index finds less of the true neighbours than `index.min_recall` asks for.
    """
    if (found := metrics[f"recall_at_{K}"]) < settings.min_recall:
        raise ConfigError(
            f"index.factory {settings.factory!r} finds {found:.1%} of the {K} nearest users, index.min_recall is "
            f"{settings.min_recall:g}: raise nprobe or efSearch in index.search_parameters or index.candidates, take "
            "a finer index.factory, or Flat, which is exact"
        )
