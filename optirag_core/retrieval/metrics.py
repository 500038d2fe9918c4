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


class HeldOutUsers:
    """The users of held-out interactions, and how well scores rank these among the items they have not trained on."""

    def __init__(self, graph: BipartiteGraph, held_out: pa.Table, *, max_users: int = MAX_USERS, seed: int = 0) -> None:
        """Held-out rows whose user or item is not in the graph are left out.

        Args:
            held_out: rows of `INTERACTIONS` of one split.
            seed: draws `max_users` users where more have held-out items.
        """
        edges = graph.edges_of(held_out)
        users = edges[0].unique()  # sorted
        if len(users) > max_users:
            chosen = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))[:max_users]
            users = users[chosen].sort().values
        self.users = users  # [U'] rows of the graph's users
        self.held_out = edges[:, torch.isin(edges[0], users)]  # [2, E']
        trained = torch.stack([graph.user_index, graph.item_index])
        self._trained = trained[:, torch.isin(trained[0], users)]  # [2, E']
        self._num_items = graph.num_items

    def ranked(self, score: Callable[[Tensor], Tensor], k: int = 20) -> dict[str, float | None]:
        """Recall@k and NDCG@k: `recall_at_k`, `ndcg_at_k`, None without a held-out edge.

        As in link prediction every held-out interaction counts, liked or not.

        Args:
            score: rows of users [C] -> scores of all items [C, I].
        """
        names = {"recall": f"recall_at_{k}", "ndcg": f"ndcg_at_{k}"}
        if len(self.users) == 0:
            return dict.fromkeys(names.values())
        metrics = LinkPredMetricCollection({"recall": LinkPredRecall(k), "ndcg": LinkPredNDCG(k)})
        for chunk in self.users.split(max(1, SCORES_PER_CHUNK // self._num_items)):
            scores = score(chunk).cpu()  # [C, I]
            scores[tuple(_local_edges(self._trained, chunk))] = -torch.inf
            ranking = scores.topk(min(k, self._num_items)).indices  # [C, k]
            metrics.update(ranking, _local_edges(self.held_out, chunk))
        return {names[name]: float(value) for name, value in metrics.compute().items()}


def retrieval_metrics(
    user_embeddings: Tensor, item_embeddings: Tensor, graph: BipartiteGraph, held_out: pa.Table, k: int = 20
) -> dict[str, float | int | None]:
    """Recall@k and NDCG@k of the embeddings' inner products, and of popularity beside them.

    Args:
        user_embeddings: [U, D]; their lengths do not matter.
        item_embeddings: [I, D], with their lengths.
        held_out: as in `HeldOutUsers`.

    Returns:
        recall_at_k, ndcg_at_k, popularity_recall_at_k, popularity_ndcg_at_k (None without a held-out edge),
        num_users, num_held_out.
    """
    asked = HeldOutUsers(graph, held_out)
    popularity = _popularity_scores(graph)
    popular = asked.ranked(lambda rows: popularity.repeat(len(rows), 1), k)
    return {
        **asked.ranked(lambda rows: user_embeddings[rows] @ item_embeddings.T, k),
        **{f"popularity_{name}": value for name, value in popular.items()},
        "num_users": len(asked.users),
        "num_held_out": asked.held_out.size(1),
    }


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
