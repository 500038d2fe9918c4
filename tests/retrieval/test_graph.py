import pyarrow as pa
import pytest
import torch

from optirag_core.errors import DataError
from optirag_core.retrieval.graph import build_graph, normalized_adjacency
from tests.retrieval.reference_retrieval import dense_adjacency, interactions

TRAIN = [("b", "y"), ("a", "x"), ("c", "z"), ("b", "x")]


def assert_same_graph(left, right):
    assert left.user_ids.equals(right.user_ids)
    assert left.item_ids.equals(right.item_ids)
    assert torch.equal(left.user_index, right.user_index)
    assert torch.equal(left.item_index, right.item_index)


def test_nodes_are_sorted_and_edges_are_train_rows():
    graph = build_graph(interactions(*TRAIN))
    assert graph.user_ids.to_pylist() == ["a", "b", "c"]
    assert graph.item_ids.to_pylist() == ["x", "y", "z"]
    assert graph.user_index.tolist() == [0, 1, 1, 2]
    assert graph.item_index.tolist() == [0, 0, 1, 2]
    assert graph.item_degree.tolist() == [2, 1, 1]


@pytest.mark.parametrize("split", ["tune", "validation", "test"])
def test_planted_held_out_rows_change_nothing(split):
    clean = build_graph(interactions(*TRAIN))
    leak = [("a", "y", split), ("a", "new item", split), ("new user", "x", split)]
    leaking = build_graph(interactions(*leak, *TRAIN))
    assert_same_graph(clean, leaking)
    assert torch.equal(normalized_adjacency(clean).to_dense(), normalized_adjacency(leaking).to_dense())
    caught = build_graph(interactions(*[(user, item, "train") for user, item, _ in leak], *TRAIN))
    assert caught.num_edges == clean.num_edges + 3  # the same rows would have shown


def test_labels_and_ratings_do_not_choose_edges():
    table = interactions(*TRAIN)
    disliked = table.set_column(3, "label", pa.array([0] * len(TRAIN), pa.int8()))
    assert_same_graph(build_graph(table), build_graph(disliked))


def test_row_order_does_not_matter():
    assert_same_graph(build_graph(interactions(*TRAIN)), build_graph(interactions(*reversed(TRAIN))))


def test_adjacency_equals_dense_one():
    graph = build_graph(interactions(*TRAIN))
    expected = dense_adjacency([(0, 0), (1, 0), (1, 1), (2, 2)], 3, 3)
    torch.testing.assert_close(
        normalized_adjacency(graph).to_dense(), torch.tensor(expected, dtype=torch.float32), atol=1e-7, rtol=0
    )


def test_edges_of_leaves_out_unknown_users_and_items():
    graph = build_graph(interactions(*TRAIN))
    held_out = interactions(("c", "x"), ("nobody", "x"), ("a", "nothing"), ("a", "z"), split="test")
    assert graph.edges_of(held_out).tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize("table", [interactions(), interactions(("a", "x"), split="test")])
def test_no_train_rows_is_an_error(table):
    with pytest.raises(DataError, match="split 'train'"):
        build_graph(table)


def test_missing_column_is_an_error():
    with pytest.raises(DataError, match="'split'"):
        build_graph(interactions(*TRAIN).drop(["split"]))
