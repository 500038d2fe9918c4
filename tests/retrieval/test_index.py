import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.errors import ArtifactCorrupt, ConfigError
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import save_vectors
from tests.retrieval.reference_retrieval import brute_force_neighbours


def random_vectors(num_users, width=8, seed=0):
    return F.normalize(torch.randn(num_users, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def user_ids(num_users):
    return pa.array([f"user {row:04d}" for row in range(num_users)])


def build(vectors, factory="Flat"):
    return UserIndex.build(user_ids(len(vectors)), vectors, factory)


def reference(vectors, row, k):
    return [(f"user {other:04d}", similarity) for other, similarity in brute_force_neighbours(vectors.numpy(), row, k)]


def assert_equal(came, expected):
    assert [neighbour.user_id for neighbour in came] == [user_id for user_id, _ in expected]
    np.testing.assert_allclose([n.similarity for n in came], [similarity for _, similarity in expected], atol=1e-6)


def test_hand_computed_neighbours():
    """cos(a, b) = 0.6, cos(a, c) = 0.8, cos(a, d) = -1, cos(b, c) = 0.48 + 0.48 = 0.96, cos(b, d) = -0.6."""
    index = build(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]]))
    assert_equal(index.similar("user 0000", 2), [("user 0002", 0.8), ("user 0001", 0.6)])
    assert_equal(index.similar("user 0001", 3), [("user 0002", 0.96), ("user 0000", 0.6), ("user 0003", -0.6)])


@settings(max_examples=40, deadline=None)
@given(
    num_users=st.integers(1, 60),
    k=st.integers(0, 70),
    seed=st.integers(0, 99),
    distinct=st.booleans(),
)
def test_flat_equals_brute_force_without_self(num_users, k, seed, distinct):
    vectors = random_vectors(num_users, seed=seed)
    if not distinct:  # many users are equal: at most 16 more than k + 1 of them are fetched
        vectors = vectors[torch.arange(num_users) // 5]
    index = build(vectors)
    batch = index.similar_batch([f"user {row:04d}" for row in range(num_users)], k)
    for row in range(num_users):
        assert_equal(batch[row], reference(vectors, row, k))
        assert batch[row] == index.similar(f"user {row:04d}", k)  # alone or in a batch: the same bits
        assert len(batch[row]) == min(k, num_users - 1)


def test_more_equal_users_than_fetched():
    index = build(torch.tensor([[0.6, 0.8]]).repeat(500, 1))
    batch = index.similar_batch([f"user {row:04d}" for row in range(500)], 4)
    for row, neighbours in enumerate(batch):
        assert len(neighbours) == 4
        assert f"user {row:04d}" not in [neighbour.user_id for neighbour in neighbours]
        assert neighbours == index.similar(f"user {row:04d}", 4)


def test_cold_user_has_no_neighbours():
    index = build(random_vectors(10))
    assert index.similar("nobody", 4) == []
    batch = index.similar_batch(["nobody", "user 0003", "nobody", "user 0007"], 4)
    assert [len(neighbours) for neighbours in batch] == [0, 4, 0, 4]
    assert batch[1] == index.similar("user 0003", 4)
    assert batch[3] == index.similar("user 0007", 4)
    assert index.similar_batch([], 4) == []


def test_searches_in_chunks_agree(monkeypatch):
    index = build(random_vectors(50))
    everyone = [f"user {row:04d}" for row in range(50)]
    whole = index.similar_batch(everyone, 4)
    monkeypatch.setattr("optirag_core.retrieval.index.QUERIES_PER_SEARCH", 7)
    assert index.similar_batch(everyone, 4) == whole


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW16"])
def test_approximate_index_finds_most(factory):
    centres = random_vectors(16, seed=1)
    vectors = F.normalize(centres.repeat(80, 1) + 0.3 * random_vectors(1280, seed=2), dim=-1)
    index = build(vectors, factory)
    hits = 0
    for row in range(0, 1280, 10):
        found = {neighbour.user_id for neighbour in index.similar(f"user {row:04d}", 4)}
        assert f"user {row:04d}" not in found
        hits += len(found & {user_id for user_id, _ in reference(vectors, row, 4)})
    assert hits / (4 * 128) > 0.8


def test_ivf_visits_a_share_of_its_lists():
    vectors = random_vectors(2000)
    assert build(vectors, "IVF48,Flat")._index.nprobe == 3


@pytest.mark.parametrize("factory", ["IVF4096,Flat", "no such index"])
def test_unfit_factory_is_an_error(factory):
    with pytest.raises(ConfigError, match=r"index.factory .* does not fit 20 users of width 8"):
        build(random_vectors(20), factory)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_save_and_load(tmp_path, factory):
    vectors = random_vectors(200)
    index = build(vectors, factory)
    save_vectors(tmp_path, "user", user_ids(200), vectors)
    (tmp_path / "index").mkdir()
    index.save(tmp_path / "index")
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["index.faiss"]
    loaded = UserIndex.load(tmp_path, tmp_path / "index")
    assert list(loaded.user_ids) == list(index.user_ids)
    assert torch.equal(loaded.embeddings, index.embeddings)
    everyone = list(index.user_ids)
    assert loaded.similar_batch(everyone, 4) == index.similar_batch(everyone, 4)


def test_files_of_two_indexes_are_refused(tmp_path):
    build(random_vectors(20)).save(tmp_path)
    save_vectors(tmp_path, "user", user_ids(21), random_vectors(21))
    with pytest.raises(ArtifactCorrupt, match="20 vectors"):
        UserIndex.load(tmp_path, tmp_path)
