"""Users with new vectors against an index that is built anew with them."""

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.config.data import IndexSettings
from optirag_core.retrieval import updated_index
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.updated_index import UpdatedIndex


def build(vectors, factory="Flat", **options):
    ids = pa.array([f"user {row:04d}" for row in range(len(vectors))])
    chosen = {name: options.pop(name) for name in ("min_history", "candidates") if name in options}
    return UserIndex.build(ids, vectors, IndexSettings(factory=factory, **chosen), **options)


def random_vectors(num_users, width=8, seed=0):
    return F.normalize(torch.randn(num_users, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_by_hand():
    """a turns from (1, 0) to (0, 1): b = (0.6, 0.8) is now 0.8 from it, c = (0.8, 0.6) only 0.6."""
    tested = UpdatedIndex(build(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])))
    new = np.array([0.0, 1.0], np.float32)
    tested.put("user 0000", new)
    assert tested.vector("user 0000").tolist() == [0.0, 1.0]
    assert tested.trained("user 0000").tolist() == [1.0, 0.0]
    found = tested.similar_to(new, 2, without="user 0000")
    assert [name for name, _ in found] == ["user 0001", "user 0002"]
    assert [similarity for _, similarity in found] == pytest.approx([0.8, 0.6])
    b = tested.vector("user 0001")
    assert [name for name, _ in tested.similar_to(b, 1, without="user 0001")] == ["user 0002"]  # 0.96, a has 0.8
    assert dict(tested.similar_to(b, 2, without="user 0001"))["user 0000"] == pytest.approx(0.8)
    assert dict(tested.similar_to(b, 2, without="user 0001", updated=False))["user 0000"] == pytest.approx(0.6)


@settings(max_examples=40, deadline=None)
@given(
    num_users=st.integers(1, 60),
    k=st.integers(0, 70),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    min_history=st.sampled_from([1, 2]),
)
def test_equal_to_an_index_built_anew(num_users, k, seed, share, min_history):
    vectors, lengths = random_vectors(num_users, seed=seed), np.arange(num_users) % 3
    lengths[0] = 2
    old = build(vectors, num_interactions=lengths, min_history=min_history)
    tested, newest = UpdatedIndex(old), vectors.clone()
    for row in np.flatnonzero(np.random.default_rng(seed).random(num_users) < share).tolist():
        for attempt in (1, 2):  # the second replaces the first
            newest[row] = random_vectors(1, seed=1000 * attempt + row)[0]
            tested.put(f"user {row:04d}", newest[row].numpy())
    anew = build(newest, num_interactions=lengths, min_history=min_history)
    for row in range(num_users):
        name = f"user {row:04d}"
        assert np.array_equal(tested.vector(name), newest[row].numpy())
        assert tested.similar_to(tested.vector(name), k, without=name) == anew.similar(name, k)
        assert tested.similar_to(tested.trained(name), k, without=name, updated=False) == old.similar(name, k)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16", "PQ4"])
def test_neighbours_of_all_kinds_of_index(factory):
    """The nearest users are replaced, more of them than are ranked: those behind them are found nevertheless."""
    vectors = random_vectors(640)
    index = build(vectors, factory, candidates=640 if factory == "PQ4" else 1)
    tested, asking = UpdatedIndex(index), vectors[0].numpy()
    near = torch.argsort(vectors @ vectors[0], descending=True)[:40].tolist()
    for row in near:
        tested.put(f"user {row:04d}", -asking)
    found = tested.similar_to(asking, 4, without="user 0000")
    best = torch.argsort(vectors @ vectors[0], descending=True)[40:44].tolist()
    expected = {f"user {row:04d}" for row in best}
    assert len({name for name, _ in found} & expected) >= (3 if factory in ("HNSW16", "IVF8,Flat") else 4)


def test_a_user_whom_the_index_lacks_asks_but_is_no_neighbour():
    vectors = random_vectors(20)
    index = build(vectors, num_interactions=np.arange(20), min_history=1)
    tested = UpdatedIndex(index)
    for name in ("stranger", "user 0000"):
        tested.put(name, vectors[3].numpy())
        found = tested.similar_to(tested.vector(name), 20, without=name)
        assert found[0].user_id == "user 0003"
        assert len(found) == 19
        assert name not in [neighbour.user_id for neighbour in tested.similar_to(vectors[3].numpy(), 20)]
    assert tested.vector("nobody") is None
    assert tested.vector(None) is None


def test_room_grows(monkeypatch):
    monkeypatch.setattr(updated_index, "CAPACITY", 1)
    vectors, newest = random_vectors(9), random_vectors(9, seed=1)
    tested = UpdatedIndex(build(vectors))
    for row in range(9):
        tested.put(f"user {row:04d}", newest[row].numpy())
    anew = build(newest)
    assert tested.similar_to(newest[4].numpy(), 8, without="user 0004") == anew.similar("user 0004", 8)
