import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn.models import LightGCN

from optirag_core.config.data import RetrieverSettings
from optirag_core.retrieval.gcn import Gcn, embedding_model, user_and_item_embeddings
from optirag_core.retrieval.graph import build_graph, normalized_adjacency
from tests.retrieval.reference_retrieval import dense_adjacency, dense_propagation, interactions

# 3 users, 4 items, edges a-p, a-q, b-p, b-r, b-s, b-q. c-s.
#
#   degrees: a 2, b 4, c 1; p 2, q 2, r 1, s 2
#   A[a,p] = A[a,q] = 1/sqrt(2*2) = 1/2      A[b,p] = A[b,q] = A[b,s] = 1/sqrt(4*2) = 1/sqrt(8)
#   A[b,r] = 1/sqrt(4*1) = 1/2               A[c,s] = 1/sqrt(1*2) = 1/sqrt(2)
EDGES = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("b", "r"), ("b", "s"), ("c", "s")]
EIGHTH = 1 / math.sqrt(8)

# Raw embedding, one number per node: users 0, items p 2, q 0, r 4, s 0.
RAW = [[0.0], [0.0], [0.0], [2.0], [0.0], [4.0], [0.0]]

# Layer 1 (items are all 0, because all users are 0):
#   a = 1/2*2 = 1      b = 2/sqrt(8) + 4/2 = 2 + 2/sqrt(8)      c = 0
# Layer 2 (users are all 0), with b1 = 2 + 2/sqrt(8):
#   p = 1/2*1 + b1/sqrt(8) = 1/2 + 2/sqrt(8) + 2/8 = 3/4 + 2/sqrt(8);  q = the same;  r = b1/2 = 1 + 1/sqrt(8)
#   s = b1/sqrt(8) = 1/4 + 2/sqrt(8)
# Layer 3 (items are all 0), with p2, q2, r2, s2:
#   a = 1/2*p2 + 1/2*q2 = 3/4 + 2/sqrt(8)
#   b = (p2 + q2 + s2)/sqrt(8) + r2/2 = (7/4 + 6/sqrt(8))/sqrt(8) + 1/2 + 1/(2 sqrt(8)) = 5/4 + 9/(4 sqrt(8))
#   c = s2/sqrt(2) = 2 s2/sqrt(8) = 1/2 + 1/(2 sqrt(8))
LAYER_1 = [1.0, 2 + 2 * EIGHTH, 0.0, 0.0, 0.0, 0.0, 0.0]
LAYER_2 = [0.0, 0.0, 0.0, 3 / 4 + 2 * EIGHTH, 3 / 4 + 2 * EIGHTH, 1 + EIGHTH, 1 / 4 + 2 * EIGHTH]
LAYER_3 = [3 / 4 + 2 * EIGHTH, 5 / 4 + 9 / 4 * EIGHTH, 1 / 2 + EIGHTH / 2, 0.0, 0.0, 0.0, 0.0]


def embeddings(aggregate, raw, weights=None):
    """All nodes' aggregated embeddings, before any normalisation."""
    retriever = RetrieverSettings(aggregate=aggregate, layer_weights=weights, embedding_dim=len(raw[0]))
    graph = build_graph(interactions(*EDGES))
    model = Gcn(graph.num_nodes, retriever, seed=0)
    model.embedding.weight.data = torch.tensor(raw)
    return propagated(model, graph), user_and_item_embeddings(model, graph)


def propagated(model, graph):
    return model(normalized_adjacency(graph), model.embedding.weight).detach()


@pytest.mark.parametrize(
    ("aggregate", "weights", "expected"),
    [
        ("mean", None, [(x + y + z) / 3 for x, y, z in zip(LAYER_1, LAYER_2, LAYER_3, strict=True)]),
        ("last", None, LAYER_3),
        (
            "weighted",
            (0.5, 2.0, -1.0),
            [0.5 * x + 2 * y - z for x, y, z in zip(LAYER_1, LAYER_2, LAYER_3, strict=True)],
        ),
    ],
)
def test_hand_computed_propagation(aggregate, weights, expected):
    nodes, (_, items) = embeddings(aggregate, RAW, weights)
    torch.testing.assert_close(nodes[:, 0], torch.tensor(expected), atol=1e-6, rtol=0)
    assert torch.equal(items, nodes[3:])  # items keep their length


def test_a_factorization_machine_propagates_nothing():
    graph = build_graph(interactions(*EDGES))
    model = embedding_model(graph.num_nodes, RetrieverSettings(method="fm"), seed=0)
    assert torch.equal(propagated(model, graph), model.embedding.weight)
    gcn = embedding_model(graph.num_nodes, RetrieverSettings(), seed=0)
    assert torch.equal(gcn.embedding.weight, model.embedding.weight)  # they start alike


def test_user_vectors_have_length_one_and_zeros_stay_zeros():
    # Only a's neighbourhood carries anything in layer 1: raw p = (3, 4) gives a = (1.5, 2), b the same direction, c 0.
    raw = [[0.0, 0.0]] * 3 + [[3.0, 4.0]] + [[0.0, 0.0]] * 3
    _, (users, _) = embeddings("weighted", raw, (1.0, 0.0, 0.0))
    torch.testing.assert_close(users, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("mean", [0.25] * 4), ("last", [0.0, 0.0, 0.0, 1.0]), ("weighted", [0.25] * 4)]
)
def test_layer_weights_by_hand(aggregate, expected):
    """Learned ones begin as the mean."""
    model = Gcn(1, RetrieverSettings(num_layers=4, aggregate=aggregate), seed=0)
    assert [float(weight) for weight in torch.as_tensor(model.layer_weights).detach()] == pytest.approx(expected)


def test_learned_layer_weights_are_a_softmax():
    model = Gcn(1, RetrieverSettings(num_layers=2, aggregate="weighted"), seed=0)
    model.learned.data = torch.tensor([math.log(3.0), 0.0])
    assert model.layer_weights.tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("aggregate", ["mean", "last"])
def test_values_and_gradients_are_those_of_torch_geometric(aggregate):
    retriever = RetrieverSettings(aggregate=aggregate, embedding_dim=8)
    graph = build_graph(interactions(*EDGES))
    adjacency, model = normalized_adjacency(graph), Gcn(graph.num_nodes, retriever, seed=3)
    alpha = torch.tensor([0.0, *model.layer_weights])
    torch.manual_seed(3)
    peer = LightGCN(graph.num_nodes, 8, retriever.num_layers, alpha=alpha, normalize=False)
    assert torch.equal(peer.embedding.weight, model.embedding.weight)
    direction = torch.randn(graph.num_nodes, 8)
    ours, theirs = model(adjacency, model.embedding.weight), peer.get_embedding(adjacency)
    for nodes in (ours, theirs):
        (nodes * direction).sum().backward()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.embedding.weight.grad, peer.embedding.weight.grad, atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_propagation_equals_dense_reference(data):
    num_layers = data.draw(st.integers(1, 4))
    pairs = st.tuples(st.integers(0, 7), st.integers(0, 5))
    pairs = sorted(data.draw(st.sets(pairs, min_size=1, max_size=30)))
    weights = data.draw(st.lists(st.floats(-2, 2, width=32), min_size=num_layers, max_size=num_layers))
    graph = build_graph(interactions(*[(f"u{user}", f"i{item}") for user, item in pairs]))
    retriever = RetrieverSettings(
        num_layers=num_layers, embedding_dim=3, aggregate="weighted", layer_weights=tuple(weights)
    )
    model = Gcn(graph.num_nodes, retriever, seed=data.draw(st.integers(0, 99)))
    users, items = sorted({user for user, _ in pairs}), sorted({item for _, item in pairs})
    edges = [(users.index(user), items.index(item)) for user, item in pairs]
    adjacency = dense_adjacency(edges, len(users), len(items))
    expected = dense_propagation(adjacency, model.embedding.weight.detach().double().numpy(), weights)
    np.testing.assert_allclose(propagated(model, graph).numpy(), expected, atol=1e-5)


def test_one_seed_one_model():
    graph = build_graph(interactions(*EDGES))
    before = torch.random.get_rng_state()
    first, second, other = (Gcn(graph.num_nodes, RetrieverSettings(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.embedding.weight, second.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert torch.equal(before, torch.random.get_rng_state())  # nobody else's randomness is touched
