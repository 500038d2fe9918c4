"""Training triples of the BPR loss: a user, an item of theirs, and an item that is not theirs.

Shape legend: `E` edges, `B` triples. Triples are [3, B] int64: user row, positive item row, negative item row.
"""

import torch
from torch import Tensor
from torch_geometric.utils import degree, structured_negative_sampling

from optirag_core.retrieval.graph import BipartiteGraph


def sample_triples(graph: BipartiteGraph, *, seed: int) -> Tensor:
    """Shuffle all training edges and draw one negative for each.

    Returns:
        [3, B]; B < E only where a user has interacted with every item and so has no negative.
    """
    edges = torch.stack([graph.user_index, graph.item_index])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        triples = _with_negatives(edges, graph)
        return triples[:, torch.randperm(triples.size(1))]


def num_triples(graph: BipartiteGraph) -> int:
    """Triples of an epoch: B of `sample_triples`."""
    return int(_has_negative(torch.stack([graph.user_index, graph.item_index]), graph).sum())


def fixed_triples(graph: BipartiteGraph, held_out: Tensor, *, seed: int) -> Tensor:
    """Draw one negative for each held-out edge: neither a training nor a held-out item of the user.

    Args:
        held_out: [2, E'] int64, user row and item row, disjoint from the training edges.

    Returns:
        [3, B]; B < E' only where a user has interacted with every item.
    """
    edges = torch.cat([held_out, torch.stack([graph.user_index, graph.item_index])], dim=1)
    wanted = torch.arange(edges.size(1)) < held_out.size(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        has_negative = _has_negative(edges, graph)
        return _with_negatives(edges, graph)[:, wanted[has_negative]]


def _with_negatives(edges: Tensor, graph: BipartiteGraph) -> Tensor:
    edges = edges[:, _has_negative(edges, graph)]  # torch_geometric would search the others' negatives for ever
    return torch.stack(structured_negative_sampling(edges, num_nodes=graph.num_items))


def _has_negative(edges: Tensor, graph: BipartiteGraph) -> Tensor:
    return degree(edges[0], graph.num_users)[edges[0]] < graph.num_items
