"""How good a set of scores is: AUC, log loss, calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from optirag_core.errors import DataError

NUM_BINS = 10
"""Bins of the calibration error: the usual number, and 1 % of the pairs' noise averages out from 1,000 pairs on."""

LOG_LOSS_CLIP = 1e-7
"""Float32 scores are 6e-8 apart just below 1: closer to an end the logarithm would measure rounding, or be infinite."""


@dataclass(frozen=True)
class BinaryMetrics:
    """Scores against what happened, in plain Python numbers."""

    pairs: int
    positive_share: float
    auc: float | None  # None where only one class is present: there is nothing to rank
    log_loss: float  # nats
    calibration_error: float


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs with neighbouring scores."""

    mean_score: float
    positive_share: float
    count: int


def binary_metrics(labels: ArrayLike, scores: ArrayLike) -> BinaryMetrics:
    """Compare scores with what happened.

    Args:
        labels: [n] 1 liked, 0 not liked.
        scores: [n] p(yes) in [0, 1].

    Raises:
        DataError: empty, of different lengths, NaN, a label other than 0 and 1, or a score outside [0, 1].
    """
    labels, scores = checked_pairs(labels, scores)
    return BinaryMetrics(
        pairs=len(labels),
        positive_share=float(labels.mean()),
        auc=float(roc_auc_score(labels, scores)) if has_both_classes(labels) else None,
        log_loss=float(answer_losses(labels, scores).mean()),
        calibration_error=_calibration_error(calibration_bins(labels, scores)),
    )


def calibration_bins(labels: ArrayLike, scores: ArrayLike) -> tuple[CalibrationBin, ...]:
    """Put the pairs into at most `NUM_BINS` bins of (nearly) equal mass, from low to high scores.

    A pair with r strictly smaller scores among n is in bin floor(NUM_BINS * r / n). So equal scores share a bin, the
    order of the rows does not matter, and a constant score fills one bin; empty bins are left out.
    """
    labels, scores = checked_pairs(labels, scores)
    num_smaller = np.searchsorted(np.sort(scores), scores, side="left")
    bins = NUM_BINS * num_smaller // len(scores)
    counts = np.bincount(bins, minlength=NUM_BINS)
    score_sums = np.bincount(bins, weights=scores, minlength=NUM_BINS)
    label_sums = np.bincount(bins, weights=labels, minlength=NUM_BINS)
    return tuple(
        CalibrationBin(float(score_sums[i] / counts[i]), float(label_sums[i] / counts[i]), int(counts[i]))
        for i in np.flatnonzero(counts)
    )


def answer_losses(labels: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """-log p(answer) of each pair, [n] nats, of scores at least `LOG_LOSS_CLIP` away from 0 and 1.

    Raises:
        DataError: as for `binary_metrics`.
    """
    labels, scores = checked_pairs(labels, scores)
    clipped = np.clip(scores, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    return -np.log(np.where(labels == 1, clipped, 1.0 - clipped))


def checked_pairs(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 and scores as float64, both [n].

    Raises:
        DataError: see `binary_metrics`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise DataError(f"got labels {labels.shape} and scores {scores.shape}, expected two lists of one length")
    if not len(labels):
        raise DataError("there are no scored pairs to measure")
    _require(np.isin(labels, (0, 1)), labels, "label", "0 or 1")
    _require((scores >= 0.0) & (scores <= 1.0), scores, "score", "a number in [0, 1]")
    return labels.astype(np.int64), scores


def has_both_classes(labels: np.ndarray) -> bool:
    """Whether there is at least one liked and one disliked pair; without them no AUC exists."""
    return 0 < labels.sum() < len(labels)


def _require(valid: np.ndarray, values: np.ndarray, name: str, expected: str) -> None:
    if not valid.all():
        row = int(np.argmin(valid))
        raise DataError(f"row {row}: {name} is {values[row]}, expected {expected}")


def _calibration_error(bins: Sequence[CalibrationBin]) -> float:
    gaps = [abs(each.mean_score - each.positive_share) for each in bins]
    return float(np.average(gaps, weights=[each.count for each in bins]))
