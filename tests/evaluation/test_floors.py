"""Floors against hand-computed means, and a slow loop that really deletes each row."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from optirag_core.evaluation.floors import PRIOR_WEIGHT, global_mean, item_mean, logistic_regression, user_mean

from .conftest import interactions
from .test_predictors import KNOWN, pairs_of


def test_three_users_four_items_by_hand():
    known, pairs = interactions(KNOWN), pairs_of([("a", "z"), ("b", "y"), ("c", "w"), ("new", "unheard")])
    assert global_mean(known, pairs).tolist() == [0.5] * 4
    # 3 more labels of 0.5: a (2 + 1.5) / (3 + 3), b (1 + 1.5) / (2 + 3), c (0 + 1.5) / (1 + 3), unknown 0.5
    assert user_mean(known, pairs) == pytest.approx([3.5 / 6, 0.5, 0.375, 0.5])
    # z and y 1.5 / (1 + 3), w (2 + 1.5) / (2 + 3), unknown 0.5
    assert item_mean(known, pairs) == pytest.approx([0.375, 0.375, 0.7, 0.5])


def mean(rows, column, value):
    labels = [row[2] for row in rows if row[column] == value]
    prior = sum(row[2] for row in rows) / len(rows)
    return (sum(labels) + PRIOR_WEIGHT * prior) / (len(labels) + PRIOR_WEIGHT)


def features(rows, pair):
    columns = []
    for column in (0, 1):
        share = mean(rows, column, pair[column])
        count = sum(row[column] == pair[column] for row in rows)
        columns += [np.log(share / (1 - share)), np.log1p(count)]
    return columns


def slow_regression(known, pairs):
    """The features of a known row come from the list without that row."""
    fitted = LogisticRegression().fit(
        [features(known[:i] + known[i + 1 :], row) for i, row in enumerate(known)], [row[2] for row in known]
    )
    return fitted.predict_proba([features(known, pair) for pair in pairs])[:, 1]


def test_equals_the_slow_loop(world):
    known = [(row["user_id"], row["item_id"], row["label"]) for row in world[0].slice(0, 300).to_pylist()]
    scored = [tuple(row.values()) for row in world[1].pairs.slice(0, 60).to_pylist()]
    pairs = [*scored, ("new", "i1"), ("u1", "unheard")]
    fast = {floor: floor(interactions(known), pairs_of(pairs)) for floor in (user_mean, item_mean, logistic_regression)}
    assert fast[user_mean] == pytest.approx([mean(known, 0, pair[0]) for pair in pairs], abs=1e-9)
    assert fast[item_mean] == pytest.approx([mean(known, 1, pair[1]) for pair in pairs], abs=1e-9)
    assert fast[logistic_regression] == pytest.approx(slow_regression(known, pairs), abs=1e-9)


@pytest.mark.parametrize("labels", [(1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_without_both_classes_the_regression_is_the_global_mean(labels):
    known = interactions([("a", "w", labels[0]), ("a", "x", labels[1]), ("b", "w", labels[2])])
    assert logistic_regression(known, pairs_of([("b", "x")])) == pytest.approx([np.mean(labels)])


def test_the_regression_beats_the_means_on_a_world_of_both(summary):
    assert summary.best_floor == "logistic regression"
