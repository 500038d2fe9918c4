"""Candidates of users who come without any, by hand and against brute force."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.data.histories import Histories
from optirag_core.data.schema import INTERACTIONS
from optirag_core.retrieval import candidates
from optirag_core.retrieval.candidates import Candidates
from optirag_core.retrieval.vectors import save_vectors

USERS = {"u1": [1.0, 0.0], "u2": [0.6, 0.8], "u3": [0.0, 1.0]}
ITEMS = {"i4": [0.0, 2.0], "i1": [3.0, 0.0], "i3": [1.0, 1.0], "i2": [0.0, 2.0]}
"""Inner products by hand: u1: i1 3, i3 1, i2 = i4 0; u2: i1 1.8, i2 = i4 1.6, i3 1.4; u3: i2 = i4 2, i3 1, i1 0."""

SEEN = [
    ("u1", "i1", "train", 100), ("u1", "i3", "validation", 200), ("u1", "i2", "test", 300),
    ("u2", "i3", "train", 100), ("u2", "i4", "tune", 200), ("u3", "i1", "train", 100), ("u3", "i4", "train", 100),
    ("late", "i1", "test", 400), ("late", "i9", "test", 500),
]  # fmt: skip
"""Popularity in training: i1 2, i3 1, i4 1, i2 0; i9 is no node of the graph."""


def histories(rows) -> Histories:
    seen: dict = {}
    records = []
    for user, item, split, time in rows:
        seen[user] = seen.get(user, -1) + 1
        row = {"user_id": user, "item_id": item, "rating": 4.0, "label": 1, "split": split}
        records.append(row | {"event_time": time, "position": seen[user]})
    return Histories.of(pa.Table.from_pylist(records, schema=INTERACTIONS))


def vectors(rows: dict) -> tuple[pa.Array, torch.Tensor]:
    return pa.array(list(rows), pa.string()), torch.tensor(list(rows.values()), dtype=torch.float32)


@pytest.fixture
def found() -> Candidates:
    return Candidates(*vectors(USERS), *vectors(ITEMS), histories(SEEN))


def test_by_hand(found):
    assert found.top(["u1", "u2", "u3"], 4) == [["i4"], ["i1", "i2"], ["i2", "i3"]]
    assert found.top(["u3", "u2"], 1) == [["i2"], ["i1"]]
    assert found.top(["u2"], 0) == [[]]


def test_ties_go_by_item_id():
    free = Candidates(*vectors(USERS), *vectors(ITEMS), histories([("x", "i1", "train", 1)]))
    assert free.top(["u1", "u2", "u3"], 4) == [
        ["i1", "i3", "i2", "i4"], ["i1", "i2", "i4", "i3"], ["i2", "i4", "i3", "i1"],
    ]  # fmt: skip
    assert free.top(["u1", "u3"], 3) == [["i1", "i3", "i2"], ["i2", "i4", "i3"]]


def test_a_user_without_training_interactions_gets_the_popular_items(found):
    assert found.top(["nobody", "late", None, "u1"], 3) == [["i1", "i3", "i4"], ["i3", "i4", "i2"], [], ["i4"]]


def test_what_happens_later_stays_a_candidate(found):
    """As in prompts: hidden is what lies at or after the request."""
    assert found.top(["u1"] * 3, 4, as_of=[300, 301, None]) == [["i2", "i4"], ["i4"], ["i4"]]
    assert found.top(["u1", "u1"], 4, as_of_position=[1, 2]) == [["i3", "i2", "i4"], ["i2", "i4"]]
    assert found.top(["late"], 1, as_of=[400]) == [["i1"]]


def test_a_position_means_its_moment(found):
    """u3 met i1 and i4 at one moment: a request at the position of either knows of neither."""
    assert found.top(["u3"] * 3, 4, as_of_position=[0, 1, 2]) == [
        ["i2", "i4", "i3", "i1"], ["i2", "i4", "i3", "i1"], ["i2", "i3"],
    ]  # fmt: skip


def test_any_vector_by_hand(found):
    """2 x + y: i1 6, i3 3, i2 = i4 2, halved by no length."""
    vector = np.array([2.0, 1.0], np.float32)
    assert found.near(vector, [], 4) == ["i1", "i3", "i2", "i4"]
    assert found.near(vector, ["i3", "i9", "i3"], 9) == ["i1", "i2", "i4"]
    assert found.near(None, ["i3"], 2) == ["i1", "i4"]
    assert found.near(vector, ["i1", "i2", "i3", "i4"], 2) == found.near(vector, [], 0) == []


def test_files_of_the_retriever(tmp_path, found):
    save_vectors(tmp_path, "user", *vectors(USERS))
    save_vectors(tmp_path, "item", *vectors(ITEMS))
    histories(SEEN).save(tmp_path)
    loaded = Candidates.load(tmp_path, tmp_path)
    asked = ["u1", "u2", "u3", "nobody"]
    assert loaded.top(asked, 4) == found.top(asked, 4)


@examples(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(0, 30), coarse=st.booleans(), chunk=st.sampled_from([1, 100, 2**23]))
def test_equal_to_brute_force_and_to_one_user_at_a_time(seed, k, coarse, chunk):
    chance = np.random.default_rng(seed)
    users, items = chance.normal(size=(7, 8)), chance.normal(size=(20, 8))
    if coarse:  # many ties
        users, items = users.round(), items.round()
    user_ids, item_ids = [f"u{n}" for n in range(7)], [f"i{n}" for n in chance.permutation(20)]
    rows = [(str(u), str(i), "train", 1) for u in user_ids for i in chance.choice(item_ids, 4, replace=False)]
    arrays = [torch.tensor(values, dtype=torch.float32) for values in (users, items)]
    tested = Candidates(pa.array(user_ids), arrays[0], pa.array(item_ids), arrays[1], histories(rows))
    exact = [array.double().numpy() for array in arrays]
    expected = []
    for number, user in enumerate(user_ids):
        met = {item for other, item, *_ in rows if other == user}
        score = dict(zip(item_ids, (exact[1] * exact[0][number]).sum(axis=1), strict=True))
        expected.append(sorted((item for item in item_ids if item not in met), key=lambda i: (-score[i], i))[:k])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "SCORES_PER_CHUNK", chunk)
        assert tested.top(user_ids, k) == expected
    assert [tested.top([user], k)[0] for user in user_ids] == expected
    met = [[item for other, item, *_ in rows if other == user] for user in user_ids]
    assert [tested.near(user, seen, k) for user, seen in zip(arrays[0].numpy(), met, strict=True)] == expected
