from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from optirag_core.data.ordering import ordered_sequences, seeded_keys
from optirag_core.errors import DataError

from .conftest import ratings_table

DAY = datetime(2020, 1, 1, tzinfo=UTC)


def day(number):
    return DAY + timedelta(days=number)


def items_by_user(ratings, seed=0):
    sequences = ordered_sequences(ratings, seed)
    found = {}
    for user, row in zip(sequences.user, sequences.row, strict=True):
        found.setdefault(sequences.user_ids[int(user)].as_py(), []).append(ratings["item_id"][int(row)].as_py())
    return found


def test_by_hand():
    """Users b and a; b has a tie (file order decides), a repeated item (the first in time stays)."""
    ratings = ratings_table(
        [
            ("b", "i", 1.0, day(5)),
            ("b", "j", 2.0, day(3)),
            ("a", "i", 3.0, day(9)),
            ("b", "k", 4.0, day(3)),
            ("b", "i", 5.0, day(1)),
            ("b", "l", 6.0, day(7)),
        ]
    )
    sequences = ordered_sequences(ratings, seed=0)
    assert sequences.user_ids.to_pylist() == ["a", "b"]
    assert sequences.user.tolist() == [0, 1, 1, 1, 1]
    assert sequences.row.tolist() == [2, 4, 1, 3, 5]
    assert sequences.position.tolist() == [0, 0, 1, 2, 3]
    assert sequences.length.tolist() == [1, 4, 4, 4, 4]
    assert sequences.num_past.tolist() == [0, 0, 1, 1, 3]  # j and k are not each other's past


def test_a_repeated_pair_without_times_keeps_the_first_in_the_file():
    ratings = ratings_table([("a", "i", 1.0), ("a", "j", 2.0), ("a", "i", 3.0)])
    assert sorted(ordered_sequences(ratings, seed=0).row.tolist()) == [0, 1]


def test_the_shuffle_depends_on_seed_user_and_items_alone():
    items = [f"i{number}" for number in range(12)]
    rows = [("a", item, 1.0) for item in items]
    order = items_by_user(ratings_table(rows))["a"]
    assert order != items
    assert items_by_user(ratings_table(rows))["a"] == order
    assert items_by_user(ratings_table(rows), seed=1)["a"] != order
    disturbed = [("0", "z", 3.0), *[(user, item, 9.0) for user, item, _ in reversed(rows)], ("b", "i3", 2.0)]
    assert items_by_user(ratings_table(disturbed))["a"] == order
    assert items_by_user(ratings_table([("b", item, 1.0) for item in items]))["b"] != order


def test_every_item_is_equally_likely_to_come_last():
    rows = [(f"u{user}", f"i{item}", 1.0) for user in range(2000) for item in range(5)]
    last = [items[-1] for items in items_by_user(ratings_table(rows)).values()]
    counts = np.array([last.count(f"i{item}") for item in range(5)])
    assert np.all(np.abs(counts - 400) < 4 * np.sqrt(400 * 0.8))  # four standard deviations


def test_keys_are_distinct_and_salted():
    ids = ratings_table([(f"u{user}", "i", 1.0) for user in range(1000)])["user_id"].combine_chunks()
    keys = seeded_keys(ids, "0:tune")
    assert len(np.unique(keys)) == 1000
    assert not np.any(keys == seeded_keys(ids, "1:tune"))


def test_mixed_times_are_refused():
    with pytest.raises(DataError, match="event_time is null in 1 of 2 ratings"):
        ordered_sequences(ratings_table([("a", "i", 1.0, day(1)), ("a", "j", 1.0, None)]), seed=0)
