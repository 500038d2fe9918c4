"""Metrics against numbers worked out by hand, and the bootstrap against scikit-learn on really repeated rows."""

from dataclasses import astuple

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import CalibrationBin, binary_metrics, bootstrap_auc_interval, calibration_bins


def test_four_pairs_by_hand():
    metrics = binary_metrics([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8])
    assert metrics.pairs == 4
    assert metrics.positive_share == 0.5
    assert metrics.auc == 0.75  # of 4 (liked, not liked) pairs only 0.4 against 0.6 is the wrong way round
    assert metrics.log_loss == pytest.approx(0.5402717, abs=1e-6)  # -(ln 0.9 + ln 0.4 + ln 0.4 + ln 0.8) / 4
    assert metrics.calibration_error == pytest.approx(0.375)  # one bin each: (0.1 + 0.6 + 0.6 + 0.2) / 4
    assert [type(value) for value in astuple(metrics)] == [int, float, float, float, float]


def test_equal_scores_share_a_bin():
    labels, scores = [0, 1, 0, 1], [0.2, 0.2, 0.2, 0.7]
    low, high = calibration_bins(labels, scores)
    assert low == CalibrationBin(pytest.approx(0.2), pytest.approx(1 / 3), 3)
    assert high == CalibrationBin(pytest.approx(0.7), 1.0, 1)
    metrics = binary_metrics(labels, scores)
    assert metrics.calibration_error == pytest.approx(0.175)  # (3 * |0.2 - 1/3| + 1 * |0.7 - 1|) / 4
    assert metrics.auc == 0.75  # two ties count half


def test_bins_have_equal_mass_and_ignore_the_order_of_rows():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(200).round(2), rng.integers(0, 2, 200)
    order = rng.permutation(200)
    shuffled = binary_metrics(labels[order], scores[order])
    assert shuffled.calibration_error == pytest.approx(binary_metrics(labels, scores).calibration_error)
    distinct = calibration_bins(labels, np.linspace(0, 1, 200))
    assert [each.count for each in distinct] == [20] * 10
    assert [each.mean_score for each in distinct] == sorted(each.mean_score for each in distinct)


def test_a_certain_and_wrong_score_costs_the_clip():
    metrics = binary_metrics([0, 1], [1.0, 1.0])
    assert metrics.log_loss == pytest.approx(-np.log(1e-7) / 2, rel=1e-6)


def test_one_class_has_no_auc():
    metrics = binary_metrics([1, 1], [0.3, 0.6])
    assert metrics.auc is None
    assert metrics.log_loss == pytest.approx(-(np.log(0.3) + np.log(0.6)) / 2)
    assert bootstrap_auc_interval([1, 1], [0.3, 0.6], seed=0) is None


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no scored pairs"),
        ([0, 1], [0.5], "one length"),
        ([0, 1], [0.5, float("nan")], "row 1: score is nan"),
        ([0, 1], [0.5, 1.5], "row 1: score is 1.5"),
        ([0, 1], [-0.1, 0.5], "row 0: score is -0.1"),
        ([0, 2], [0.5, 0.5], "row 1: label is 2"),
        ([0.0, float("nan")], [0.5, 0.5], "row 1: label is nan"),
    ],
)
def test_bad_input_is_named(labels, scores, message):
    with pytest.raises(DataError, match=message):
        binary_metrics(labels, scores)
    with pytest.raises(DataError, match=message):
        bootstrap_auc_interval(labels, scores, seed=0)


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 90)
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.normal(size=90), 0, 1).round(1)  # rounded: many ties
    return labels, scores, rng.integers(0, 30, 90)


def test_bootstrap_equals_repeating_the_rows(sample):
    labels, scores, users = sample
    users = np.unique(users, return_inverse=True)[1]
    num_users = users.max() + 1
    rng = np.random.default_rng(5)
    aucs = []
    for _ in range(50):
        drawn = rng.integers(num_users, size=num_users)
        rows = np.concatenate([np.flatnonzero(users == user) for user in drawn])
        aucs.append(roc_auc_score(labels[rows], scores[rows]))
    interval = bootstrap_auc_interval(labels, scores, seed=5, num_resamples=50, groups=users)
    assert interval == pytest.approx(np.percentile(aucs, [2.5, 97.5]), abs=1e-12)


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
    with pytest.raises(DataError, match="one per pair"):
        bootstrap_auc_interval(labels, scores, seed=0, groups=[0, 1])
