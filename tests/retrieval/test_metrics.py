import math

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.retrieval import metrics
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.metrics import HeldOutUsers, retrieval_metrics
from tests.retrieval.reference_retrieval import interactions, recall_and_ndcg

# Users a, b, c; items p, q, r, s. Train: a-p, b-p, b-q, b-r, c-s. Popularity: p 2, q 1, r 1, s 1.
TRAIN = [("a", "p"), ("b", "p"), ("b", "q"), ("b", "r"), ("c", "s")]
# One number per node, so a user with vector 1 ranks the items by their numbers: r 4, p 3, s 2, q 1.
USERS = torch.tensor([[1.0], [1.0], [-1.0]])
ITEMS = torch.tensor([[3.0], [1.0], [4.0], [2.0]])


def test_hand_computed_recall_and_ndcg():
    """a ranks r, s, q (p is trained): held-out s and q at 2 and 3. c ranks q, p, r (s is trained): held-out r at 3.

    k = 2: recall a = 1/2, c = 0. NDCG a = (1/log2 3) / (1 + 1/log2 3), c = 0.
    Popularity for a ranks q, r, s (p is trained; equals in order): q at 1, s at 3. For c: p, q, r: r at 3.
    k = 2: recall a = 1/2, c = 0. NDCG a = 1 / (1 + 1/log2 3), c = 0.
    """
    graph = build_graph(interactions(*TRAIN))
    held_out = interactions(("a", "s"), ("a", "q"), ("c", "r"), ("nobody", "p"), split="test")
    result = retrieval_metrics(USERS, ITEMS, graph, held_out, k=2)
    third = 1 / math.log2(3)
    assert result == {
        "recall_at_2": pytest.approx((1 / 2 + 0) / 2),
        "ndcg_at_2": pytest.approx((third / (1 + third) + 0) / 2),
        "popularity_recall_at_2": pytest.approx((1 / 2 + 0) / 2),
        "popularity_ndcg_at_2": pytest.approx((1 / (1 + third) + 0) / 2),
        "num_users": 2,
        "num_held_out": 3,
    }


def test_liked_and_not_liked_interactions_both_count():
    graph = build_graph(interactions(*TRAIN))
    held_out = interactions(("a", "s"), ("c", "r"), split="test")
    labels = held_out.schema.get_field_index("label")
    mixed = held_out.set_column(labels, "label", pa.array([0, 1], pa.int8()))
    result = retrieval_metrics(USERS, ITEMS, graph, mixed)
    assert result == retrieval_metrics(USERS, ITEMS, graph, held_out)
    assert result["num_held_out"] == 2


def test_a_users_own_length_changes_nothing():
    graph = build_graph(interactions(*TRAIN))
    held_out = interactions(("a", "s"), ("c", "r"), split="test")
    longer = USERS * torch.tensor([[5.0], [0.1], [3.0]])
    assert retrieval_metrics(USERS, ITEMS, graph, held_out) == retrieval_metrics(longer, ITEMS, graph, held_out)


def test_no_usable_held_out_row():
    graph = build_graph(interactions(*TRAIN))
    result = retrieval_metrics(USERS, ITEMS, graph, interactions(("nobody", "p"), split="test"), k=3)
    assert result["recall_at_3"] is None
    assert result["num_users"] == 0


def test_many_users_are_sampled_with_a_seed():
    graph = build_graph(interactions(*TRAIN))
    held_out = interactions(("a", "s"), ("a", "q"), ("c", "r"), split="test")
    drawn = [HeldOutUsers(graph, held_out, max_users=1, seed=seed) for seed in range(8)]
    assert {each.held_out.size(1) for each in drawn} == {1, 2}  # c alone, or a alone
    assert torch.equal(drawn[0].users, HeldOutUsers(graph, held_out, max_users=1, seed=0).users)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_equals_reference_in_any_chunking(data):
    pairs = st.tuples(st.integers(0, 6), st.integers(0, 8))
    train = sorted(data.draw(st.sets(pairs, min_size=1, max_size=25)))
    held_out = sorted(data.draw(st.sets(pairs, max_size=25)) - set(train))
    graph = build_graph(interactions(*[(f"{user}", f"{item}") for user, item in train]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    users = torch.randn(graph.num_users, 4, generator=generator)
    items = torch.randn(graph.num_items, 4, generator=generator)
    k = data.draw(st.integers(1, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "SCORES_PER_CHUNK", data.draw(st.integers(1, 40)))
        rows = interactions(*[(f"{user}", f"{item}") for user, item in held_out], split="test")
        result = retrieval_metrics(users, items, graph, rows, k=k)
    expected = []
    for user in range(graph.num_users):
        trained = set(graph.item_index[graph.user_index == user].tolist())
        relevant = set(graph.edges_of(rows)[1][graph.edges_of(rows)[0] == user].tolist())
        ranking = [item for item in (items @ users[user]).argsort(descending=True).tolist() if item not in trained]
        if relevant:
            expected.append(recall_and_ndcg(ranking, relevant, k))
    if expected:
        recalls, ndcgs = zip(*expected, strict=True)
        assert result[f"recall_at_{k}"] == pytest.approx(sum(recalls) / len(recalls), abs=1e-5)
        assert result[f"ndcg_at_{k}"] == pytest.approx(sum(ndcgs) / len(ndcgs), abs=1e-5)
    else:
        assert result["num_users"] == 0
