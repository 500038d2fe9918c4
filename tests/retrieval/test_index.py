import faiss
import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from optirag_core.config.data import IndexSettings
from optirag_core.errors import ArtifactCorrupt, ConfigError
from optirag_core.retrieval.faiss_index import filled_index
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.recall import recall
from optirag_core.retrieval.vectors import save_vectors
from tests.retrieval.reference_retrieval import brute_force_neighbours

FACTORIES = ["Flat", "IVF16,Flat", "HNSW16", "PQ4", "IVF8,PQ4"]


def random_vectors(num_users, width=8, seed=0):
    return F.normalize(torch.randn(num_users, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def user_ids(num_users):
    return pa.array([f"user {row:04d}" for row in range(num_users)])


def clustered_vectors(num_users, width=8):
    """Around 16 centres, so that lists and codes have something to find."""
    centres = random_vectors(16, width, seed=1)[torch.arange(num_users) % 16]
    return F.normalize(centres + 0.3 * random_vectors(num_users, width, seed=2), dim=-1)


def build(vectors, factory="Flat", *, num_interactions=None, **settings):
    chosen = IndexSettings(factory=factory, **settings)
    return UserIndex.build(user_ids(len(vectors)), vectors, chosen, num_interactions=num_interactions)


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
    monkeypatch.setattr("optirag_core.retrieval.index.CANDIDATES_PER_SEARCH", 7 * 50)
    assert index.similar_batch(everyone, 4) == whole


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_factory_finds_most_at_exact_similarities(factory):
    vectors = clustered_vectors(1280)
    index = build(vectors, factory)
    hits = 0
    for row in range(0, 1280, 10):
        found = index.similar(f"user {row:04d}", 4)
        assert len({neighbour.user_id for neighbour in found} - {f"user {row:04d}"}) == 4
        for neighbour in found:
            exact = vectors[row].double() @ vectors[int(neighbour.user_id[5:])].double()
            assert neighbour.similarity == pytest.approx(float(exact), abs=1e-12)
        hits += len({(n.user_id) for n in found} & {user_id for user_id, _ in reference(vectors, row, 4)})
    assert hits / (4 * 128) > 0.9


@pytest.mark.parametrize("factory", FACTORIES)
def test_filled_in_chunks_is_filled_at_once(factory, monkeypatch):
    vectors = clustered_vectors(640)
    everyone = np.arange(640)
    whole = build(vectors, factory)
    monkeypatch.setattr("optirag_core.retrieval.faiss_index.VECTORS_PER_CHUNK", 100)
    chunked = build(vectors, factory)
    if factory.startswith("HNSW"):  # its graph depends on who came in together
        found, expected = (index.nearest(everyone, 4)[1] for index in (chunked, whole))
        assert recall(found, expected, 1e-6) > 0.99
    else:
        assert np.array_equal(chunked.nearest(everyone, 4)[0], whole.nearest(everyone, 4)[0])


def test_many_vectors_are_sampled_to_train(monkeypatch):
    """k-means of 4 lists sees 4 x 64 vectors of the 2,000, by the seed; all users are found nevertheless."""
    monkeypatch.setattr("optirag_core.retrieval.faiss_index.LEAST_TRAINED", 0)
    vectors = random_vectors(2000).numpy()
    rows = np.arange(2000, dtype=np.int32)
    one, again, other = (
        filled_index(vectors, rows, IndexSettings(factory="IVF4,Flat"), seed=seed) for seed in (0, 0, 1)
    )
    centres = [index.quantizer.reconstruct_n(0, 4) for index in (one, again, other)]
    assert np.array_equal(centres[0], centres[1])
    assert not np.array_equal(centres[0], centres[2])
    assert one.ntotal == 2000


@pytest.mark.parametrize(("num_lists", "visited"), [(4, 4), (16, 8), (160, 10)])
def test_ivf_visits_a_share_of_its_lists(num_lists, visited):
    assert build(random_vectors(200), f"IVF{num_lists},Flat")._index.nprobe == visited


@pytest.mark.parametrize(
    ("factory", "parameters", "read"),
    [
        ("IVF16,Flat", "nprobe=5", lambda index: index.nprobe == 5),
        ("HNSW16", "efSearch=77", lambda index: index.hnsw.efSearch == 77),
        ("IVF8,PQ4", "nprobe=3", lambda index: index.nprobe == 3),
        (
            "IVF8_HNSW4,Flat",
            "nprobe=3,quantizer_efSearch=9",
            lambda index: faiss.downcast_index(index.quantizer).hnsw.efSearch == 9,
        ),
    ],
)
def test_search_parameters_survive_the_file(tmp_path, factory, parameters, read):
    vectors = random_vectors(640)
    index = build(vectors, factory, search_parameters=parameters)
    save_vectors(tmp_path, "user", user_ids(640), vectors)
    index.save(tmp_path)
    assert read(index._index)
    assert read(UserIndex.load(tmp_path, tmp_path)._index)


def test_more_lists_visited_find_more():
    vectors = random_vectors(2000)
    exact = build(vectors).nearest(np.arange(2000), 10)[1]
    indexes = [build(vectors, "IVF32,Flat", search_parameters=f"nprobe={number}") for number in (1, 4, 32)]
    few, some, all_of_them = (recall(index.nearest(np.arange(2000), 10)[1], exact, 1e-6) for index in indexes)
    assert few < some < all_of_them == 1.0


def test_more_candidates_find_more_in_codes():
    vectors = random_vectors(640, width=64)
    exact = build(vectors).nearest(np.arange(640), 10)[1]
    few, many, all_of_them = (
        recall(build(vectors, "PQ4", candidates=number).nearest(np.arange(640), 10)[1], exact, 1e-6)
        for number in (1, 100, 640)
    )
    assert few < many < all_of_them == 1.0


def test_users_with_short_histories_ask_but_are_no_neighbours():
    """As `test_hand_computed_neighbours`; c has one training interaction, and two are wanted."""
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
    index = build(vectors, num_interactions=np.array([2, 5, 1, 2]), min_history=2)
    assert_equal(index.similar("user 0000", 2), [("user 0001", 0.6), ("user 0003", -1.0)])
    assert_equal(index.similar("user 0002", 4), [("user 0001", 0.96), ("user 0000", 0.8), ("user 0003", -0.8)])
    assert "user 0002" in index
    assert index.rows.tolist() == [0, 1, 3]


@pytest.mark.parametrize("factory", FACTORIES)
def test_some_users_indexed_equal_brute_force_among_them(factory, tmp_path):
    vectors = clustered_vectors(640)
    lengths = np.arange(640) % 3
    index = build(vectors, factory, num_interactions=lengths, min_history=1, candidates=640)
    save_vectors(tmp_path, "user", user_ids(640), vectors)
    index.save(tmp_path)
    for opened in (index, UserIndex.load(tmp_path, tmp_path)):
        for row in (0, 1, 2, 300):
            others = [pair for pair in reference(vectors, row, 640) if lengths[int(pair[0][5:])] >= 1]
            found = opened.similar(f"user {row:04d}", 4)
            if factory.startswith("IVF"):  # only near lists are visited
                assert {neighbour.user_id for neighbour in found} <= {user_id for user_id, _ in others}
            else:
                assert_equal(found, others[:4])


def test_a_history_that_nobody_has_is_an_error():
    with pytest.raises(ConfigError, match=r"min_history 9 leaves none of 20 users .* most active user has 8"):
        build(random_vectors(20), num_interactions=np.full(20, 8), min_history=9)


@pytest.mark.parametrize("parameters", ["efSearch=4", "probes=4"])
def test_unfit_search_parameters_are_an_error(parameters):
    with pytest.raises(ConfigError, match=rf"search_parameters '{parameters}' does not fit 200 users"):
        build(random_vectors(200), "IVF4,Flat", search_parameters=parameters)


@pytest.mark.parametrize("parameters", ["nprobe=0", "nprobe=-1", "nprobe", "nprobe=4;x", "", "nprobe=1e9"])
def test_search_parameters_are_whole_positive_numbers(parameters):
    with pytest.raises(ValidationError, match="search_parameters"):
        IndexSettings(search_parameters=parameters)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(load_faiss(), "get_num_gpus", lambda: 0)
    with pytest.raises(ConfigError, match=r"index\.gpu is true, but FAISS sees no GPU"):
        build(random_vectors(20), gpu=True)


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF8,PQ4"])
def test_made_on_a_gpu(factory, tmp_path):
    if not load_faiss().get_num_gpus():
        pytest.skip("FAISS sees no GPU")
    vectors = clustered_vectors(1280)
    index = build(vectors, factory, gpu=True)
    save_vectors(tmp_path, "user", user_ids(1280), vectors)
    index.save(tmp_path)
    everyone = np.arange(1280)
    exact = build(vectors).nearest(everyone, 10)[1]
    found = UserIndex.load(tmp_path, tmp_path).nearest(everyone, 10)[1]
    assert np.array_equal(found, index.nearest(everyone, 10)[1])
    assert recall(found, exact, 1e-6) > (0.999999 if factory == "Flat" else 0.9)


@pytest.mark.gpu
def test_an_index_that_gpus_do_not_have_is_an_error():
    if not load_faiss().get_num_gpus():
        pytest.skip("FAISS sees no GPU")
    with pytest.raises(ConfigError, match="on a GPU"):
        build(random_vectors(200), "HNSW16", gpu=True)


@pytest.mark.parametrize("factory", ["IVF4096,Flat", "no such index"])
def test_unfit_factory_is_an_error(factory):
    with pytest.raises(ConfigError, match=r"index.factory .* does not fit 20 users of width 8: use Flat"):
        build(random_vectors(20), factory)


@pytest.mark.parametrize("factory", FACTORIES)
def test_save_and_load(tmp_path, factory):
    vectors = random_vectors(640)
    index = build(vectors, factory)
    save_vectors(tmp_path, "user", user_ids(640), vectors)
    (tmp_path / "index").mkdir()
    index.save(tmp_path / "index")
    assert [path.name for path in sorted((tmp_path / "index").iterdir())] == ["index.faiss", "index_rows.arrow"]
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


def test_an_index_of_an_earlier_version_is_refused(tmp_path):
    build(random_vectors(20)).save(tmp_path)
    save_vectors(tmp_path, "user", user_ids(20), random_vectors(20))
    (tmp_path / "index_rows.arrow").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"has no index_rows\.arrow: an earlier version made it"):
        UserIndex.load(tmp_path, tmp_path)
