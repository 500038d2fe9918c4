"""How good the scores of one predictor are, whatever made them: figures, interval and curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from optirag_core.evaluation.bootstrap import bootstrap_auc_interval
from optirag_core.evaluation.metrics import (
    BinaryMetrics,
    CalibrationBin,
    binary_metrics,
    calibration_bins,
    checked_pairs,
    has_both_classes,
)

NUM_SCORE_BINS = 40
"""Bins of 0.025: fine enough for scores that crowd in a narrow band, and still bars and not needles in a plot."""

NUM_ROC_POINTS = 101
"""Enough for a smooth line; a full curve has a point per pair."""


@dataclass(frozen=True)
class ScoreHistogram:
    """Pairs of each label by score."""

    edges: tuple[float, ...]  # [NUM_SCORE_BINS + 1]
    liked: tuple[int, ...]  # [NUM_SCORE_BINS]
    not_liked: tuple[int, ...]  # [NUM_SCORE_BINS]


@dataclass(frozen=True)
class RocCurve:
    """At most `NUM_ROC_POINTS` points from (0, 0) to (1, 1)."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class Quality(BinaryMetrics):
    """One predictor's scores against what happened."""

    auc_interval: tuple[float, float] | None  # 95 %; None where only one class is present, like `auc` and `roc`
    calibration: tuple[CalibrationBin, ...]
    histogram: ScoreHistogram
    roc: RocCurve | None


def quality(labels: ArrayLike, scores: ArrayLike, users: ArrayLike, *, seed: int) -> Quality:
    """Measure scores.

    Args:
        labels: [n] 1 liked, 0 not liked.
        scores: [n] p(yes) in [0, 1].
        users: [n] user of each pair; the interval's bootstrap draws whole users.
        seed: of the bootstrap. Predictors that are measured with one seed on the same pairs meet the same draws.

    Raises:
        DataError: as for `binary_metrics`, or not one user per pair.
    """
    labels, scores = checked_pairs(labels, scores)
    return Quality(
        **vars(binary_metrics(labels, scores)),
        auc_interval=bootstrap_auc_interval(labels, scores, seed, groups=users),
        calibration=calibration_bins(labels, scores),
        histogram=_histogram(labels, scores),
        roc=_roc(labels, scores),
    )


def _histogram(labels: np.ndarray, scores: np.ndarray) -> ScoreHistogram:
    edges = np.linspace(0.0, 1.0, NUM_SCORE_BINS + 1)
    liked, not_liked = (np.histogram(scores[labels == label], bins=edges)[0].tolist() for label in (1, 0))
    return ScoreHistogram(tuple(edges.tolist()), tuple(liked), tuple(not_liked))


def _roc(labels: np.ndarray, scores: np.ndarray) -> RocCurve | None:
    if not has_both_classes(labels):
        return None
    false_positive, true_positive, _ = roc_curve(labels, scores)
    along = false_positive + true_positive  # rises from 0 to 2: steps of it follow the steep and the flat parts alike
    kept = np.unique(np.searchsorted(along, np.linspace(0.0, 2.0, NUM_ROC_POINTS)))
    return RocCurve(tuple(false_positive[kept].tolist()), tuple(true_positive[kept].tolist()))
