"""The GCN-Retriever's model: LightGCN propagation and the aggregation of its layers.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `K` layers, `D` embedding width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.models import LightGCN

from optirag_core.config.data import RetrieverSettings
from optirag_core.retrieval.graph import BipartiteGraph, normalized_adjacency


def layer_weights(settings: RetrieverSettings) -> Tensor:
    """Weight of each layer in a node's embedding: [K+1], layer 0 first and always 0.

    The paper aggregates layers 1..K; torch_geometric's default would include the raw embedding (layer 0).

    Source: arXiv:2501.02173v2, section 4, second equation; algorithm 1, lines 4-10.
    """
    if settings.aggregate == "weighted":
        propagated = torch.tensor(settings.layer_weights)
    elif settings.aggregate == "last":
        propagated = F.one_hot(torch.tensor(settings.num_layers - 1), settings.num_layers).float()
    else:
        propagated = torch.full((settings.num_layers,), 1.0 / settings.num_layers)
    return torch.cat([torch.zeros(1), propagated])


def build_model(graph: BipartiteGraph, settings: RetrieverSettings, *, seed: int) -> LightGCN:
    """Create the untrained model, its [N, D] weights drawn from `seed`.

    `normalize` is off because `normalized_adjacency` is normalised once instead of at every layer of every step. The
    paper leaves its aggregation function open; here it is e^(k+1) = A e^(k) (LightGCN, arXiv:2002.02126).

    Source: arXiv:2501.02173v2, section 4, first equation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LightGCN(
            graph.num_nodes,
            settings.embedding_dim,
            settings.num_layers,
            alpha=layer_weights(settings),
            normalize=False,
        )


@torch.no_grad()
def user_and_item_embeddings(model: LightGCN, graph: BipartiteGraph) -> tuple[Tensor, Tensor]:
    """Propagate and aggregate; scale every user's vector to length 1.

    Items keep their length, which ranks popular items higher; a user's own length changes no ranking of items. A vector
    of zeros (possible only when all weights of its aggregation vanish) stays zeros: its cosine to everyone is 0.

    Source: arXiv:2501.02173v2, algorithm 1, lines 2-12.

    Returns:
        users [U, D], items [I, D], float32.
    """
    embeddings = model.get_embedding(normalized_adjacency(graph))  # [N, D]
    users, items = embeddings.split([graph.num_users, graph.num_items])
    return F.normalize(users, dim=-1), items.clone()
