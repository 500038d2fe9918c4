"""A folded vector is the propagated one of the same user: by hand, on drawn graphs, and from files."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.config.data import RetrieverSettings
from optirag_core.data.mapped import SortedIds
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.gcn import embedding_model, item_fold_in, user_and_item_embeddings
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.vectors import load_fold_in, save_fold_in
from tests.retrieval.reference_retrieval import interactions

EDGES = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("b", "r"), ("b", "s"), ("c", "s")]
WEIGHTS = {"mean": None, "last": None, "weighted": (0.5, 2.0, -1.0)}


def fold_in_of(graph, vectors):
    return FoldIn(SortedIds.of(interactions_of(graph)["item_id"]).array, vectors)


def interactions_of(graph):
    users, items = graph.user_ids.to_pylist(), graph.item_ids.to_pylist()
    edges = zip(graph.user_index.tolist(), graph.item_index.tolist(), strict=True)
    return interactions(*((users[user], items[item]) for user, item in edges))


def test_hand_computed():
    """One layer: f_i = e_i / sqrt(d_i), degrees p 2, q 2, r 1, s 2. A user of p and r: 2 / sqrt(2) and 4 / sqrt(1)."""
    settings = RetrieverSettings(aggregate="last", num_layers=1, embedding_dim=2)
    graph = build_graph(interactions(*EDGES))
    model = embedding_model(graph.num_nodes, settings, seed=0)
    model.embedding.weight.data = torch.tensor([[9.0, 9.0]] * 3 + [[2.0, 0.0], [1.0, 1.0], [0.0, 4.0], [1.0, 1.0]])
    vectors = item_fold_in(model, graph)
    half = 1 / math.sqrt(2)
    expected = torch.tensor([[2 * half, 0.0], [half, half], [0.0, 4.0], [half, half]])
    torch.testing.assert_close(vectors, expected)
    length = math.hypot(2 * half, 4)
    np.testing.assert_allclose(
        fold_in_of(graph, vectors).vector(["r", "p"]), [2 * half / length, 4 / length], atol=1e-6
    )


@st.composite
def graphs(draw):
    edges = draw(st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("pqrstu")), min_size=1))
    return build_graph(interactions(*sorted(edges)))


@settings(max_examples=40, deadline=None)
@given(
    graph=graphs(), aggregate=st.sampled_from(sorted(WEIGHTS)), num_layers=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_every_trained_users_vector_is_the_propagated_one(graph, aggregate, num_layers, seed):
    weights = WEIGHTS[aggregate] and (*WEIGHTS[aggregate], 0.5)[:num_layers]
    settings = RetrieverSettings(
        aggregate=aggregate, layer_weights=weights, num_layers=num_layers, embedding_dim=8
    )  # fmt: skip
    model = embedding_model(graph.num_nodes, settings, seed=seed)
    users, _ = user_and_item_embeddings(model, graph)
    assert_folds_to(graph, item_fold_in(model, graph), users)


def test_learned_weights_fold_in_too():
    graph = build_graph(interactions(*EDGES))
    model = embedding_model(graph.num_nodes, RetrieverSettings(aggregate="weighted"), seed=0)
    model.learned.data = torch.tensor([1.0, -1.0, 0.5])
    assert_folds_to(graph, item_fold_in(model, graph), user_and_item_embeddings(model, graph)[0])


def assert_folds_to(graph, vectors, users):
    folded = fold_in_of(graph, vectors)
    items = graph.item_ids.to_pylist()
    for row in range(graph.num_users):
        mine = [items[item] for item in graph.item_index[graph.user_index == row].tolist()]
        np.testing.assert_allclose(folded.vector(mine), users[row], atol=1e-5)


def test_a_factorization_machine_folds_in_the_items_embeddings():
    graph = build_graph(interactions(*EDGES))
    model = embedding_model(graph.num_nodes, RetrieverSettings(method="fm"), seed=0)
    assert torch.equal(item_fold_in(model, graph), user_and_item_embeddings(model, graph)[1])


@pytest.mark.parametrize("items", [[], ["no such item"]])
def test_items_without_training_interactions_say_nothing(items):
    graph = build_graph(interactions(*EDGES))
    folded = fold_in_of(graph, torch.randn(4, 3))
    assert folded.vector(items) is None
    assert np.array_equal(folded.vector([*items, "p", "s"]), folded.vector(["s", "p"]))


def test_round_trip(tmp_path):
    assert load_fold_in(tmp_path) is None
    vectors = torch.randn(5, 3).T[:, :4]
    save_fold_in(tmp_path, vectors)
    assert torch.equal(load_fold_in(tmp_path), vectors)
