"""Slow, obvious versions of the retriever: dense propagation, brute-force neighbours, metrics by their definition."""

import math

import numpy as np
import pyarrow as pa

from optirag_core.data.schema import INTERACTIONS


def interactions(*rows: tuple[str, str] | tuple[str, str, str], split: str = "train") -> pa.Table:
    """A table of INTERACTIONS from (user, item) or (user, item, split)."""
    records = [
        {
            "user_id": row[0],
            "item_id": row[1],
            "rating": 5.0,
            "label": 1,
            "event_time": None,
            "position": position,
            "split": row[2] if len(row) == 3 else split,
        }
        for position, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(records, schema=INTERACTIONS)


def dense_adjacency(edges: list[tuple[int, int]], num_users: int, num_items: int) -> np.ndarray:
    """Symmetric-normalised adjacency [N, N] in float64, users first."""
    adjacency = np.zeros((num_users + num_items, num_users + num_items))
    for user, item in edges:
        adjacency[user, num_users + item] = adjacency[num_users + item, user] = 1.0
    degrees = adjacency.sum(axis=1)
    for row in range(len(adjacency)):
        for column in range(len(adjacency)):
            if adjacency[row, column]:
                adjacency[row, column] /= math.sqrt(degrees[row] * degrees[column])
    return adjacency


def dense_propagation(adjacency: np.ndarray, raw: np.ndarray, weights: list[float]) -> np.ndarray:
    """sum over k = 1..K of weights[k-1] * A^k raw: [N, D]."""
    layers = [np.linalg.matrix_power(adjacency, k) @ raw for k in range(1, len(weights) + 1)]
    return sum(weight * layer for weight, layer in zip(weights, layers, strict=True))


def brute_force_neighbours(vectors: np.ndarray, row: int, k: int) -> list[tuple[int, float]]:
    """The k rows with the highest inner product to `row`, without it; the lower row first where they are equal."""
    others = [(other, float(vectors[row].astype(float) @ vectors[other])) for other in range(len(vectors))]
    ranked = sorted(others, key=lambda pair: (-pair[1], pair[0]))
    return [pair for pair in ranked if pair[0] != row][:k]


def recall_and_ndcg(ranking: list[int], relevant: set[int], k: int) -> tuple[float, float]:
    """Recall@k and binary NDCG@k of one user's ranking."""
    hits = [position for position, item in enumerate(ranking[:k]) if item in relevant]
    gain = sum(1 / math.log2(position + 2) for position in hits)
    ideal = sum(1 / math.log2(position + 2) for position in range(min(k, len(relevant))))
    return len(hits) / len(relevant), gain / ideal
