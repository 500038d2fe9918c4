"""The GCN-Retriever's model: LightGCN propagation and the aggregation of its layers.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `K` layers, `D` embedding width, or a worker's part
of it: no column of the embeddings meets another one before the scores.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optirag_core.config.data import RetrieverSettings
from optirag_core.retrieval.graph import BipartiteGraph, normalized_adjacency


class Gcn(nn.Module):
    """Raw embeddings, propagated without weights: e^(k+1) = A e^(k) (LightGCN, arXiv:2002.02126).

    The paper leaves its aggregation function open. `torch_geometric`'s own LightGCN gives the same numbers
    (`tests/retrieval/test_gcn.py`); its gradients transpose the adjacency at every layer of every step, though it is
    symmetric (`benchmarks/retriever.py`).

    Source: arXiv:2501.02173v2, section 4, first equation.
    """

    def __init__(self, num_nodes: int, settings: RetrieverSettings, *, seed: int) -> None:
        """Draw the [N, D] weights from `seed`."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(num_nodes, settings.embedding_dim)
            nn.init.xavier_uniform_(self.embedding.weight)
        self.fixed = fixed_layer_weights(settings)
        self.learned = None if self.fixed else nn.Parameter(torch.zeros(settings.num_layers))

    @property
    def layer_weights(self) -> Sequence[float] | Tensor:
        """[K], of layers 1..K: layer 0, the raw embeddings, never counts.

        Source: arXiv:2501.02173v2, section 4, second equation; algorithm 1, lines 4-10.
        """
        return self.fixed if self.learned is None else self.learned.softmax(dim=0)

    def forward(self, adjacency: Tensor, raw: Tensor) -> Tensor:
        """Propagate and aggregate.

        Args:
            adjacency: `normalized_adjacency` [N, N].
            raw: the embedding's weight, or some of its columns [N, D].

        Returns:
            [N, D].
        """
        layer, total = raw, torch.zeros_like(raw)
        for weight in self.layer_weights:
            layer = _SymmetricProduct.apply(adjacency, layer)  # type: ignore[no-untyped-call]  # it has no types
            total = total + weight * layer if self.learned is not None else total.add(layer, alpha=weight)
        return total

    def neighbour_sum(self, adjacency: Tensor, raw: Tensor) -> Tensor:
        """What `forward` multiplies with the adjacency once more: sum over k = 1..K of w_k e^(k-1) [N, D]."""
        layer, total = raw, torch.zeros_like(raw)
        for weight in self.layer_weights:
            total = total + weight * layer
            layer = adjacency @ layer
        return total


class FactorizationMachine(Gcn):
    """The comparator without a graph: a node's embedding is its raw one (Rendle, ICDM 2010).

    Of users and items as the only features its score is w_u + w_i + v_u v_i. The user's bias falls out of BPR, the
    item's says nothing about which users are alike: both are left out.

    Source: arXiv:2501.02173v2, section 6 and table 5.
    """

    def forward(self, adjacency: Tensor, raw: Tensor) -> Tensor:
        """`raw` itself."""
        return raw

    def neighbour_sum(self, adjacency: Tensor, raw: Tensor) -> Tensor:
        """`raw`: BPR pulls a user's vector towards those of its items; there is no closed form of where it ends."""
        return raw


def embedding_model(num_nodes: int, settings: RetrieverSettings, *, seed: int) -> Gcn:
    """The untrained model that `retriever.method` names."""
    models = {"gcn": Gcn, "fm": FactorizationMachine}
    return models[settings.method](num_nodes, settings, seed=seed)


class _SymmetricProduct(torch.autograd.Function):
    """A x of a symmetric A: the gradient of x is A g, where autograd would transpose A."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, dense: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix @ gradient


def fixed_layer_weights(settings: RetrieverSettings) -> tuple[float, ...]:
    """[K] where `aggregate` gives them; none where they are learned."""
    if settings.aggregate == "weighted":
        return settings.layer_weights or ()
    if settings.aggregate == "last":
        return (*[0.0] * (settings.num_layers - 1), 1.0)
    return (1.0 / settings.num_layers,) * settings.num_layers


@torch.no_grad()
def user_and_item_embeddings(model: Gcn, graph: BipartiteGraph) -> tuple[Tensor, Tensor]:
    """Propagate and aggregate; scale every user's vector to length 1.

    Items keep their length, which ranks popular items higher; a user's own length changes no ranking of items. A vector
    of zeros (possible only when all weights of its aggregation vanish) stays zeros: its cosine to everyone is 0.

    Source: arXiv:2501.02173v2, algorithm 1, lines 2-12.

    Returns:
        users [U, D], items [I, D], float32.
    """
    embeddings = model(normalized_adjacency(graph), model.embedding.weight)  # [N, D]
    users, items = embeddings.split([graph.num_users, graph.num_items])
    return F.normalize(users, dim=-1), items.clone()


@torch.no_grad()
def item_fold_in(model: Gcn, graph: BipartiteGraph) -> Tensor:
    """Item vectors whose sum over a user's items, scaled to length 1, is the user's vector.

    e_u^(k) = d_u^-1/2 sum_i d_i^-1/2 e_i^(k-1) is linear in the items, and d_u falls out: f_i = d_i^-1/2 sum_k w_k
    e_i^(k-1). For the GCN's users that is exact; another interaction leaves the items' vectors and degrees as they were
    in training. A factorization machine propagates nothing: f_i is the item's embedding, and the sum an approximation.

    Source: arXiv:2501.02173v2, section 4; arXiv:2002.02126, equation 3.

    Returns:
        [I, D] float32.
    """
    summed = model.neighbour_sum(normalized_adjacency(graph), model.embedding.weight)[graph.num_users :]  # [I, D]
    if isinstance(model, FactorizationMachine):
        return summed.clone()
    return summed * graph.item_degree.to(summed.dtype).rsqrt()[:, None]
