import numpy as np
import pytest
import torch
import torch.nn.functional as F

from optirag_core.config.data import IndexSettings
from optirag_core.errors import ConfigError
from optirag_core.retrieval import recall as module
from optirag_core.retrieval.recall import exact_similarities, measured, recall, require_recall
from tests.retrieval.reference_retrieval import brute_force_neighbours, recall_and_ndcg
from tests.retrieval.test_index import build, clustered_vectors, random_vectors

NOBODY = -np.inf


def test_recall_by_hand():
    """First user: 0.9 and 0.7 of 0.9, 0.8, 0.7 found. Second: has two others, one is found. Third: has none.

    2 of 3 and 1 of 2 and nothing of nothing: 3 / 5.
    """
    exact = np.array([[0.9, 0.8, 0.7], [0.5, 0.4, NOBODY], [NOBODY] * 3])
    found = np.array([[0.9, 0.7, 0.6], [0.5, NOBODY, NOBODY], [NOBODY] * 3])
    assert recall(found, exact, 1e-6) == pytest.approx(3 / 5)


def test_equally_similar_users_count_as_each_other():
    """Who was found instead of the third is as similar to within rounding; who is less similar by more is a miss."""
    exact = np.array([[0.9, 0.8, 0.8]], dtype=np.float32)
    assert recall(np.array([[0.9, 0.8, 0.8 - 4e-8]]), exact, 1e-6) == 1.0
    assert recall(np.array([[0.9, 0.8, 0.8 - 4e-5]]), exact, 1e-6) == pytest.approx(2 / 3)


def test_nobody_has_a_neighbour():
    assert recall(np.full((1, 0), NOBODY), np.full((1, 3), NOBODY), 1e-6) == 1.0


@pytest.mark.parametrize("chunk", [7, 65_536])
@pytest.mark.parametrize("distinct", [True, False])
def test_exact_similarities_equal_brute_force(chunk, distinct, monkeypatch):
    monkeypatch.setattr(module, "VECTORS_PER_CHUNK", chunk)
    vectors = random_vectors(40).numpy()
    if not distinct:  # more users are equal than are asked for
        vectors = vectors[np.arange(40) // 20]
    rows = np.arange(40, dtype=np.int32)[np.arange(40) % 3 > 0]  # the others ask, but are no neighbours
    exact = exact_similarities(vectors, rows, np.arange(40), 10)
    for row in range(40):
        others = [pair for pair in brute_force_neighbours(vectors, row, 40) if pair[0] in rows][:10]
        np.testing.assert_allclose(exact[row], [similarity for _, similarity in others], atol=1e-6)


def test_fewer_others_than_asked_for():
    exact = exact_similarities(np.eye(3, dtype=np.float32), np.array([0, 1], np.int32), np.arange(3), 4)
    assert exact[:, :3].tolist() == [[0.0, NOBODY, NOBODY], [0.0, NOBODY, NOBODY], [0.0, 0.0, NOBODY]]


def test_measured_recall_is_that_of_brute_force():
    """No ties in these vectors, so that ids tell the same as similarities."""
    vectors = random_vectors(600)
    index = build(vectors, "IVF32,Flat", search_parameters="nprobe=4")
    by_ids = []
    for row in range(600):
        found = [int(neighbour.user_id[5:]) for neighbour in index.similar(f"user {row:04d}", 10)]
        true = {other for other, _ in brute_force_neighbours(vectors.numpy(), row, 10)}
        by_ids.append(recall_and_ndcg(found, true, 10)[0])
    metrics = measured(index)
    assert 0.3 < metrics["recall_at_10"] < 0.9
    assert metrics["recall_at_10"] == pytest.approx(np.mean(by_ids), abs=1e-9)
    assert metrics["queries_per_s"] > 0 < metrics["exact_queries_per_s"]


@pytest.mark.parametrize("num_users", [1, 2, 9, 1500])
def test_flat_finds_all(num_users):
    """Of one user, of fewer than ten others, of users of whom many are equal, and of a sample."""
    vectors = clustered_vectors(num_users)[torch.arange(num_users) // 30 * 30]
    metrics = measured(build(vectors, num_interactions=np.arange(num_users) + 1, min_history=1))
    assert metrics["recall_at_10"] == 1.0
    assert (metrics["num_users"], metrics["num_indexed"]) == (num_users, num_users)
    require_recall(metrics, IndexSettings(min_recall=1.0))


def test_users_outside_the_index_ask_too(monkeypatch):
    vectors = clustered_vectors(300)
    metrics = measured(build(vectors, num_interactions=np.arange(300) % 3, min_history=2))
    assert (metrics["num_users"], metrics["num_indexed"], metrics["recall_at_10"]) == (300, 100, 1.0)


def test_an_index_that_finds_too_little_is_refused():
    metrics = measured(build(F.normalize(random_vectors(2000), dim=-1), "IVF64,Flat", search_parameters="nprobe=1"))
    settings = IndexSettings(factory="IVF64,Flat")
    with pytest.raises(
        ConfigError, match=r"finds [1-6]\d\.\d% of the 10 nearest users, index.min_recall is 0.9: raise"
    ):
        require_recall(metrics, settings)
    require_recall(metrics, settings.model_copy(update={"min_recall": 0.05}))
