"""Figures of single users, worked out by hand, and the AUC of groups against scikit-learn's."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from optirag_core.evaluation.comparison import joined_pairs
from optirag_core.evaluation.per_user import grouped_auc, top_overlap, user_metrics
from tests.evaluation.conftest import scores_of


def pairs_of(rows):
    """(user, item, score and exit layer before, score and exit layer after) -> `joined_pairs`."""
    before = scores_of([(user, item, score, layer, False) for user, item, score, layer, _, _ in rows])
    after = scores_of([(user, item, score, layer, False) for user, item, _, _, score, layer in rows])
    return joined_pairs(before, after)


ROWS = [
    ("a", "1", 0.9, 2, 0.5, 2),
    ("a", "2", 0.5, 2, 0.75, 4),
    ("a", "3", 0.25, 2, 0.25, 4),
    ("b", "1", 0.5, 2, 0.5, 2),
    ("b", "2", 0.5, 4, 0.5, 4),
]


def test_the_lists_of_users_with_more_pairs_than_places_are_compared():
    """Of a, item 1 was the best and item 2 is now; both are in a list of two, and three have room for all."""
    pairs = pairs_of(ROWS)
    assert top_overlap(pairs, 1).to_pylist() == [{"user_id": "a", "overlap": 0}, {"user_id": "b", "overlap": 1}]
    assert top_overlap(pairs, 2)["overlap"].to_pylist() == [2, None]
    assert top_overlap(pairs, 3)["overlap"].to_pylist() == [None, None]


def test_equal_scores_go_by_item_id_whatever_the_order_of_the_rows():
    rows = [("a", item, 0.5, 2, 0.5, 2) for item in ("10", "9", "3", "1")]
    assert top_overlap(pairs_of(rows), 2)["overlap"].to_pylist() == [2]
    assert top_overlap(pairs_of(rows[::-1]), 2)["overlap"].to_pylist() == [2]


def test_user_metrics_by_hand():
    labels = pa.table({"user_id": ["a", "a"], "item_id": ["1", "2"], "label": pa.array([1, 0], pa.int8())})

    a, b = user_metrics(pairs_of(ROWS), labels, 2).to_pylist()

    assert (a["user_id"], a["pairs"], a["exits_changed"], a["top_overlap"], a["labelled"]) == ("a", 3, 2, 2, 2)
    assert a["mean_drift"] == pytest.approx((0.4 + 0.25 + 0.0) / 3, abs=1e-7)
    assert a["max_drift"] == pytest.approx(0.4, abs=1e-7)
    assert (a["mean_exit_before"], a["mean_exit_after"]) == (2.0, pytest.approx(10 / 3))
    assert (a["auc_before"], a["auc_after"]) == (1.0, 0.0)
    assert a["log_loss_before"] == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2)
    assert a["log_loss_after"] == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)
    assert (b["pairs"], b["mean_drift"], b["exits_changed"], b["top_overlap"]) == (2, 0.0, 0, None)
    assert (b["labelled"], b["auc_before"], b["log_loss_after"]) == (None, None, None)


def test_users_without_labels_have_no_quality():
    for row in user_metrics(pairs_of(ROWS), None, 2).to_pylist():
        assert (row["labelled"], row["auc_before"], row["log_loss_before"]) == (None, None, None)


def test_the_auc_of_groups_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, scores, groups = rng.integers(0, 2, 300), rng.random(300).round(1), rng.integers(0, 20, 300)
    expected = [roc_auc_score(labels[groups == group], scores[groups == group]) for group in range(20)]
    assert grouped_auc(labels, scores, groups) == pytest.approx(expected)


def test_a_group_of_one_class_has_no_auc():
    found = grouped_auc(np.array([1, 1, 0, 1]), np.array([0.5, 0.6, 0.2, 0.1]), np.array([0, 0, 1, 1]))
    assert np.isnan(found[0]) and found[1] == 0.0
