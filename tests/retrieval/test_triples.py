import torch

from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.triples import fixed_triples, sample_triples
from tests.retrieval.reference_retrieval import interactions

EDGES = [(f"u{user}", f"i{item}") for user in range(20) for item in range(10) if (user * 7 + item * 3) % 4 == 0]


def pairs(users, items):
    return set(zip(users.tolist(), items.tolist(), strict=True))


def test_every_edge_once_with_a_negative_that_is_not_the_users():
    graph = build_graph(interactions(*EDGES))
    users, positives, negatives = sample_triples(graph, seed=3)
    train = pairs(graph.user_index, graph.item_index)
    assert pairs(users, positives) == train
    assert users.numel() == graph.num_edges
    assert not pairs(users, negatives) & train
    assert set(negatives.tolist()) <= set(range(graph.num_items))


def test_seed_decides():
    graph = build_graph(interactions(*EDGES))
    torch.manual_seed(0)
    first = sample_triples(graph, seed=3)
    torch.manual_seed(1)
    assert torch.equal(first, sample_triples(graph, seed=3))
    assert not torch.equal(first, sample_triples(graph, seed=4))


def test_user_of_every_item_has_no_triples():
    graph = build_graph(interactions(("all", "x"), ("all", "y"), ("one", "x")))
    assert sample_triples(graph, seed=0).tolist() == [[1], [0], [1]]  # one: x before y


def test_fixed_negatives_are_neither_trained_nor_held_out():
    graph = build_graph(interactions(("a", "x"), ("b", "y"), ("b", "z"), ("b", "w")))
    held_out = graph.edges_of(interactions(("a", "y"), ("a", "z"), split="validation"))
    users, positives, negatives = fixed_triples(graph, held_out, seed=0)
    assert users.tolist() == [0, 0]
    assert graph.item_ids.take(positives.numpy()).to_pylist() == ["y", "z"]
    assert graph.item_ids.take(negatives.numpy()).to_pylist() == ["w", "w"]


def test_held_out_user_without_negative_is_left_out():
    graph = build_graph(interactions(("a", "x"), ("b", "y")))
    held_out = graph.edges_of(interactions(("a", "y"), split="validation"))
    assert fixed_triples(graph, held_out, seed=0).shape == (3, 0)
