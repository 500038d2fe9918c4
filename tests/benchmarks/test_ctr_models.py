"""What the benchmark makes of ratings, by hand."""

import pandas as pd
import pytest
import torch

from benchmarks.ctr_models import FIELDS, samples_of, split_at_random


def rows(users: list[str], labels: list[float]) -> pd.DataFrame:
    """Of one item and one value of every other field."""
    table = pd.DataFrame({**dict.fromkeys(FIELDS, "same"), "user_id": users, "label": labels})
    return table[[*FIELDS, "label"]]


def test_a_random_split_has_every_pair_once():
    splits = split_at_random(rows([f"u{number}" for number in range(20)], [1.0] * 20), seed=0)

    assert [len(of) for of in splits.values()] == [16, 2, 2]
    assert sorted(pd.concat(splits.values())["user_id"]) == sorted(f"u{number}" for number in range(20))
    assert not splits["test"].equals(split_at_random(rows([f"u{n}" for n in range(20)], [1.0] * 20), 1)["test"])


def test_ids_are_of_training_pairs_and_nobody_has_a_past():
    splits = {
        "train": rows(["a", "a", "b", "b", "c"], [1.0, 0.0, 1.0, 1.0, 0.0]),
        "valid": rows(["b"], [0.0]),
        "test": rows(["c", "d", "a"], [1.0, 0.0, 1.0]),
    }

    samples = samples_of(splits, min_count=2)

    assert samples.vocabularies.fields == (3, 2, 2, 2, 2, 2)  # c has one training pair, d none
    assert samples.train.fields[:, 0].tolist() == [1, 1, 2, 2, 0]
    assert samples.validation.fields[:, 0].tolist() == [2]
    assert samples.test.fields[:, 0].tolist() == [0, 0, 1]
    assert samples.test.labels.tolist() == pytest.approx([1.0, 0.0, 1.0])
    batch = samples.batch(samples.test, torch.arange(3))
    assert batch.history_lengths.tolist() == [0, 0, 0]
    assert not batch.history_items.any()
    assert samples.test_table["user_id"].to_pylist() == ["c", "d", "a"]
