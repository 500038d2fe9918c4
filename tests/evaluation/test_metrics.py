"""Metrics against numbers worked out by hand."""

from dataclasses import astuple

import numpy as np
import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import CalibrationBin, answer_losses, binary_metrics, calibration_bins


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


def test_losses_of_pairs_by_hand():
    losses = answer_losses([1, 0, 1], [0.8, 0.25, 0.0])
    assert losses == pytest.approx([0.2231436, 0.2876821, 16.1180957], abs=1e-6)  # -ln 0.8, -ln 0.75, -ln 1e-7


def test_one_class_has_no_auc():
    metrics = binary_metrics([1, 1], [0.3, 0.6])
    assert metrics.auc is None
    assert metrics.log_loss == pytest.approx(-(np.log(0.3) + np.log(0.6)) / 2)


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
        answer_losses(labels, scores)
