"""Quality of any predictor: its figures are the metrics', its curves hold every pair."""

from dataclasses import fields

import numpy as np
import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import bootstrap_auc_interval
from optirag_core.evaluation.metrics import BinaryMetrics, binary_metrics, calibration_bins
from optirag_core.evaluation.quality import RocCurve, quality

LABELS, SCORES, USERS = [0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8], ["a", "a", "b", "b"]


@pytest.fixture
def many():
    rng = np.random.default_rng(3)
    labels, users = rng.integers(0, 2, 900), rng.integers(0, 90, 900).astype(str)
    return labels, np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.normal(size=900), 0, 1), users


def test_four_pairs_by_hand():
    measured = quality(LABELS, SCORES, USERS, seed=0)
    assert (measured.pairs, measured.positive_share, measured.auc) == (4, 0.5, 0.75)
    assert [each.mean_score for each in measured.calibration] == SCORES
    histogram = measured.histogram
    assert (sum(histogram.liked), sum(histogram.not_liked)) == (2, 2)
    assert [histogram.edges[bin] for bin in np.flatnonzero(histogram.liked)] == pytest.approx([0.4, 0.8], abs=0.025)
    # from the highest score down: liked, not liked, liked, not liked
    assert measured.roc == RocCurve((0.0, 0.0, 0.5, 0.5, 1.0), (0.0, 0.5, 0.5, 1.0, 1.0))


def test_figures_are_those_of_the_metrics(many):
    labels, scores, users = many
    measured = quality(labels, scores, users, seed=4)
    metrics = binary_metrics(labels, scores)
    assert all(getattr(measured, field.name) == getattr(metrics, field.name) for field in fields(BinaryMetrics))
    assert measured.calibration == calibration_bins(labels, scores)


def test_interval_draws_whole_users(many):
    labels, scores, users = many
    interval = quality(labels, scores, users, seed=4).auc_interval
    assert interval == bootstrap_auc_interval(labels, scores, seed=4, groups=users)
    assert interval != bootstrap_auc_interval(labels, scores, seed=4)


def test_roc_keeps_its_ends_and_its_area(many):
    measured = quality(*many, seed=0)
    x, y = measured.roc.false_positive_rate, measured.roc.true_positive_rate
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert len(x) == len(y) <= 101
    assert np.trapezoid(y, x) == pytest.approx(measured.auc, abs=0.005)


def test_one_class_leaves_the_ranking_out():
    measured = quality([1, 1], [0.3, 0.6], ["a", "b"], seed=0)
    assert (measured.auc, measured.auc_interval, measured.roc) == (None, None, None)
    assert sum(measured.histogram.not_liked) == 0


def test_bad_input_is_named():
    with pytest.raises(DataError, match=r"score is 1\.2"):
        quality([0, 1], [0.5, 1.2], ["a", "b"], seed=0)
    with pytest.raises(DataError, match="1 groups for 2 pairs"):
        quality([0, 1], [0.5, 0.2], ["a"], seed=0)
