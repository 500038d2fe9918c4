"""What the benchmark says of similar users' histories, by hand."""

import pytest
import torch

from benchmarks.index import AskedPair, _asked, _generated, _said
from optirag_core.data.histories import Histories, Shown
from optirag_core.data.splits import requests_for
from tests.prompting.conftest import interactions
from tests.prompting.small import index_of


def test_what_the_shown_entries_say():
    """The liked item is covered by one liked and one disliked rating, the other one by one disliked.

    Mean labels 0.5 > 0.0: AUC 1. Mean ratings 4 of the first and 2 of the second pair: AUC 1; the third shows nothing.
    """
    pairs = [
        AskedPair("x", 1, [Shown("x", 5.0), Shown("x", 1.0), Shown("y", 6.0)]),
        AskedPair("y", 0, [Shown("y", 2.0)]),
        AskedPair("z", 1, []),
    ]
    said = _said(pairs, like_threshold=3.0)
    assert said == {
        "pairs": 3,
        "shown_entries_per_pair": pytest.approx(4 / 3),
        "covered_pairs": 2,
        "covered_share": pytest.approx(2 / 3),
        "auc_of_mean_label_where_covered": 1.0,
        "auc_of_mean_shown_rating": 1.0,
    }
    assert _said(pairs[:1], 3.0)["auc_of_mean_shown_rating"] is None


def test_similar_users_show_their_training_interactions_only():
    table = interactions(
        ("a", "p", 4, "train"), ("a", "x", 5, "test"), ("b", "x", 3, "train"), ("b", "y", 2, "validation")
    )
    pairs = _asked(index_of(["a", "b"]), Histories.of(table), requests_for(table, "test"))
    assert pairs == [AskedPair("x", 1, [Shown("x", 3.0)])]


def test_generated_vectors_are_of_length_1():
    vectors = _generated(250)
    assert vectors.shape == (250, 64)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(250))
