"""Link-prediction quality of the embeddings: does a user's held-out item rank among their first k?

Shape legend: `U` users, `I` items, `C` users of a chunk, `E` edges, `D` embedding width.
"""

from collections.abc import Callable

import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.metrics import LinkPredMetricCollection, LinkPredNDCG, LinkPredRecall

from optirag_core.retrieval.graph import BipartiteGraph

MAX_USERS = 5000
"""More users are sampled down: the standard error of a Recall near 0.1 is then 0.004."""

SCORES_PER_CHUNK = 2**24
"""Bounds the [C, I] matrix of scores to 64 MiB."""


def retrieval_metrics(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    graph: BipartiteGraph,
    held_out: pa.Table,
    k: int = 20,
    *,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """Recall@k and NDCG@k of the embeddings' inner products, and of popularity beside them.

    As in link prediction every held-out interaction counts, liked or not. A user's training items are not ranked.
    Held-out rows whose user or item is not in the graph are left out, for popularity too.

    Args:
        user_embeddings: [U, D]; their lengths do not matter.
        item_embeddings: [I, D], with their lengths.
        held_out: rows of `INTERACTIONS` of one split.
        seed: draws `MAX_USERS` users where more have held-out items.

    Returns:
        recall_at_k, ndcg_at_k, popularity_recall_at_k, popularity_ndcg_at_k (None without a held-out edge),
        num_users, num_held_out.
    """
    edges = graph.edges_of(held_out)
    users = edges[0].unique()  # sorted
    if len(users) > MAX_USERS:
        chosen = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))[:MAX_USERS]
        users = users[chosen].sort().values
    popularity = _popularity_scores(graph)
    results: dict[str, float | int | None] = {
        **_rank("", lambda rows: user_embeddings[rows] @ item_embeddings.T, users, edges, graph, k),
        **_rank("popularity_", lambda rows: popularity.repeat(len(rows), 1), users, edges, graph, k),
    }
    return {**results, "num_users": len(users), "num_held_out": int(torch.isin(edges[0], users).sum())}


def _rank(
    prefix: str, score: Callable[[Tensor], Tensor], users: Tensor, edges: Tensor, graph: BipartiteGraph, k: int
) -> dict[str, float | None]:
    names = {"recall": f"{prefix}recall_at_{k}", "ndcg": f"{prefix}ndcg_at_{k}"}
    if len(users) == 0:
        return dict.fromkeys(names.values())
    metrics = LinkPredMetricCollection({"recall": LinkPredRecall(k), "ndcg": LinkPredNDCG(k)})
    train = torch.stack([graph.user_index, graph.item_index])
    for chunk in users.split(max(1, SCORES_PER_CHUNK // graph.num_items)):
        scores = score(chunk)  # [C, I]
        scores[tuple(_local_edges(train, chunk))] = -torch.inf
        ranking = scores.topk(min(k, graph.num_items)).indices  # [C, k]
        metrics.update(ranking, _local_edges(edges, chunk))
    return {names[name]: float(value) for name, value in metrics.compute().items()}


def _popularity_scores(graph: BipartiteGraph) -> Tensor:
    """Distinct scores [I] in the order of training counts: the first of equally popular items wins."""
    order = torch.argsort(graph.item_degree, descending=True, stable=True)
    scores = torch.empty(graph.num_items)
    scores[order] = -torch.arange(graph.num_items, dtype=torch.float32)
    return scores


def _local_edges(edges: Tensor, users: Tensor) -> Tensor:
    """Edges of the given sorted users, numbered within them: [2, E] -> [2, E']."""
    local = torch.searchsorted(users, edges[0]).clamp(max=len(users) - 1)
    inside = users[local] == edges[0]
    return torch.stack([local[inside], edges[1, inside]])
