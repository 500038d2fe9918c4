"""Whoever is erased comes back neither from raw files nor from events."""

import pyarrow as pa

from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.schema import RATINGS
from optirag_core.erasure.journal import Journal
from optirag_core.erasure.user import erased_tokens, token_of, without_erased
from optirag_core.storage.local import LocalStorage

RAW = RawDataset(
    pa.table({"user_id": ["a", "b", "a"], "item_id": ["1", "1", "2"], "rating": [5, 4, 3], "event_time": [None] * 3},
             schema=RATINGS),
    pa.table({"user_id": ["a", "b"], "age": [30, 40]}),
    pa.table({"item_id": ["1", "2"], "title": ["t", "u"]}),
    (),
    {"num_ratings": 3, "num_users": 2},
)  # fmt: skip


def test_a_token_is_the_ids_own_and_does_not_hold_it():
    assert len({token_of(user_id) for user_id in ("a", "b", "ab", "", "é")}) == 5
    assert token_of("a") == token_of("a")
    assert len(token_of("a" * 99)) == 32


def test_without_an_erasure_the_data_stays_as_it_is(tmp_path):
    assert without_erased(RAW, LocalStorage(tmp_path)) is RAW


def test_erased_users_leave_ratings_and_profiles(tmp_path):
    storage = LocalStorage(tmp_path)
    Journal.begin(storage, "a").finish({"events": 0})
    Journal.begin(storage, "never here")

    left = without_erased(RAW, storage)

    assert erased_tokens(storage) == {token_of("a"), token_of("never here")}
    assert left.ratings["user_id"].to_pylist() == ["b"]
    assert left.users.to_pylist() == [{"user_id": "b", "age": 40}]
    assert left.items is RAW.items
    assert left.counts == {"num_ratings": 1, "num_users": 1, "erased_users": 1}
