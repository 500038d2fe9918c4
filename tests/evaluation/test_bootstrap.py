"""The bootstrap against scikit-learn and plain means on really repeated rows, and differences worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import (
    bootstrap_auc_difference,
    bootstrap_auc_interval,
    bootstrap_mean_difference,
)


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 90)
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.normal(size=90), 0, 1).round(1)  # rounded: many ties
    return labels, scores, rng.integers(0, 30, 90)


@pytest.fixture
def others(sample):
    """Scores that say nearly the same."""
    return np.clip(sample[1] + 0.05 * np.random.default_rng(4).normal(size=90), 0, 1)


def repeated_rows(users, seed, num_resamples):
    """Rows of each draw, a user's rows as often as the user was drawn."""
    users = np.unique(users, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples):
        drawn = rng.integers(users.max() + 1, size=users.max() + 1)
        yield np.concatenate([np.flatnonzero(users == user) for user in drawn])


def test_bootstrap_equals_repeating_the_rows(sample):
    labels, scores, users = sample
    aucs = [roc_auc_score(labels[rows], scores[rows]) for rows in repeated_rows(users, 5, 50)]
    interval = bootstrap_auc_interval(labels, scores, seed=5, num_resamples=50, groups=users)
    assert interval == pytest.approx(np.percentile(aucs, [2.5, 97.5]), abs=1e-12)


def test_differences_equal_repeating_the_rows_of_both(sample, others):
    labels, scores, users = sample
    draws = list(repeated_rows(users, 5, 50))
    gaps = [roc_auc_score(labels[rows], scores[rows]) - roc_auc_score(labels[rows], others[rows]) for rows in draws]
    found = bootstrap_auc_difference(labels, scores, others, seed=5, num_resamples=50, groups=users)
    assert found[1:] == pytest.approx(np.percentile(gaps, [2.5, 97.5]), abs=1e-12)
    means = [scores[rows].mean() - others[rows].mean() for rows in draws]
    found = bootstrap_mean_difference(scores, others, seed=5, num_resamples=50, groups=users)
    assert found[1:] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=1e-12)


def test_auc_difference_by_hand():
    """User a alone gains 1, user b alone nothing; together 0.75 against 0.5."""
    labels, scores, others = [0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8], [0.4, 0.1, 0.6, 0.8]
    found = bootstrap_auc_difference(labels, scores, others, seed=0, groups=["a", "a", "b", "b"])
    assert found == (0.25, 0.0, 1.0)
    assert found.is_noise


def test_mean_difference_by_hand():
    """Gaps of 0 and 1 (user a) and 2 (user b): 0.5 with a alone, 2 with b alone."""
    found = bootstrap_mean_difference([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], seed=0, groups=["a", "a", "b"])
    assert found == (1.0, 0.5, 2.0)
    assert not found.is_noise


def test_difference_is_narrower_than_either_and_turns_around(sample, others):
    labels, scores, users = sample
    found = bootstrap_auc_difference(labels, scores, others, seed=0, groups=users)
    low, high = bootstrap_auc_interval(labels, scores, seed=0, groups=users)
    assert found.high - found.low < 0.5 * (high - low)
    turned = bootstrap_auc_difference(labels, others, scores, seed=0, groups=users)
    assert turned == pytest.approx((-found.value, -found.high, -found.low), abs=1e-12)
    assert bootstrap_auc_difference(labels, scores, scores, seed=0, groups=users) == (0.0, 0.0, 0.0)


def test_one_class_has_no_auc_to_compare():
    assert bootstrap_auc_interval([1, 1], [0.3, 0.6], seed=0) is None
    assert bootstrap_auc_difference([1, 1], [0.3, 0.6], [0.6, 0.3], seed=0) is None


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        (bootstrap_auc_interval, ([0, 1], [0.5, 1.5]), "row 1: score is 1.5"),
        (bootstrap_auc_difference, ([0, 1], [0.5, 0.5], [0.5]), "one length"),
        (bootstrap_auc_difference, ([0, 1], [0.5, 0.5], [0.5, float("nan")]), "row 1: score is nan"),
        (bootstrap_mean_difference, ([], []), "not empty"),
        (bootstrap_mean_difference, ([1.0, 2.0], [1.0]), "one length"),
        (bootstrap_mean_difference, ([1.0, 2.0], [1.0, float("inf")]), "row 1: values 2.0 and inf"),
    ],
)
def test_bad_input_is_named(measure, arguments, message):
    with pytest.raises(DataError, match=message):
        measure(*arguments, seed=0)


@pytest.mark.parametrize("measure", [bootstrap_auc_interval, bootstrap_auc_difference, bootstrap_mean_difference])
def test_every_pair_has_a_group(measure):
    columns = [[0, 1]] + [[0.5, 0.6]] * (1 + (measure is bootstrap_auc_difference))
    with pytest.raises(DataError, match="1 groups for 2 pairs, expected one per pair"):
        measure(*columns, seed=0, groups=["a"])


def test_interval_surrounds_the_auc_and_follows_the_seed(sample):
    labels, scores, _ = sample
    low, high = bootstrap_auc_interval(labels, scores, seed=0)
    assert 0.0 < low < roc_auc_score(labels, scores) < high < 1.0
    assert bootstrap_auc_interval(labels, scores, seed=0) == (low, high)
    assert bootstrap_auc_interval(labels, scores, seed=1) != (low, high)


def test_copies_of_a_pair_do_not_narrow_the_interval_of_groups(sample):
    labels, scores, _ = sample
    copies = [np.repeat(column, 9) for column in (labels, scores, np.arange(90))]
    widths = {}
    for name, groups in (("pairs", None), ("groups", copies[2])):
        low, high = bootstrap_auc_interval(copies[0], copies[1], seed=0, groups=groups)
        widths[name] = high - low
    assert widths["groups"] > 2.0 * widths["pairs"]  # 9 copies: about 3 times
