"""What else the figures might have been: percentile bootstraps over whole users, alone and of two predictors together.

Two predictors on the same pairs share what makes the pairs easy or hard, so the interval of their difference is several
times narrower than either's own: whether one is better shows there, and not in whether their intervals overlap.

All draw the same users for the same seed and groups.

Shapes: n pairs, B resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import checked_pairs, has_both_classes


class Difference(NamedTuple):
    """One figure less another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether 0 lies in the interval: the two cannot be told apart."""
        return self.low <= 0.0 <= self.high


def bootstrap_auc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    seed: int,
    num_resamples: int = 200,
    *,
    groups: ArrayLike | None = None,
) -> tuple[float, float] | None:
    """Estimate the 95 % interval of the AUC.

    Args:
        labels, scores: as for `binary_metrics`.
        groups: [n] what is drawn as a whole, e.g. the user of each pair: pairs of one user are not independent, and
            drawing them one by one would make the interval too narrow. None: every pair on its own.

    Returns:
        (low, high), or None where only one class is present.

    Raises:
        DataError: as for `binary_metrics`, or not one group per pair.
    """
    resampled = resampled_aucs(labels, [scores], seed, num_resamples, groups=groups)
    return None if resampled is None else _interval(resampled[:, 0])


def bootstrap_auc_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    others: ArrayLike,
    seed: int,
    num_resamples: int = 1000,
    *,
    groups: ArrayLike | None = None,
) -> Difference | None:
    """AUC of `scores` less that of `others`, both on the same draw of groups each time.

    Args, Raises:
        As for `bootstrap_auc_interval`; others: [n] p(yes) of the same pairs.

    Returns:
        None where only one class is present.
    """
    resampled = resampled_aucs(labels, [scores, others], seed, num_resamples, groups=groups)
    if resampled is None:
        return None
    value = roc_auc_score(labels, scores) - roc_auc_score(labels, others)
    return difference_of(value, resampled[:, 0] - resampled[:, 1])


def bootstrap_mean_difference(
    values: ArrayLike,
    others: ArrayLike,
    seed: int,
    num_resamples: int = 1000,
    *,
    groups: ArrayLike | None = None,
) -> Difference:
    """Mean of `values` less that of `others`, both on the same draw of groups each time.

    Args:
        values, others: [n] of the same pairs, e.g. their `answer_losses`.
        groups: as for `bootstrap_auc_interval`.

    Raises:
        DataError: empty, of different lengths, not finite, or not one group per pair.
    """
    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if values.ndim != 1 or values.shape != others.shape or not len(values):
        raise DataError(f"got values {values.shape} and {others.shape}, expected two lists of one length, not empty")
    gaps = values - others
    if not np.isfinite(gaps).all():
        row = int(np.argmin(np.isfinite(gaps)))
        raise DataError(f"row {row}: values {values[row]} and {others[row]}, expected finite numbers")
    return difference_of(gaps.mean(), resampled_means([gaps], seed, num_resamples, groups=groups)[:, 0])


def resampled_aucs(
    labels: ArrayLike,
    columns: Sequence[ArrayLike],
    seed: int,
    num_resamples: int,
    *,
    groups: ArrayLike | None = None,
) -> np.ndarray | None:
    """AUC of each column of scores on each draw; a draw of one class only is drawn again.

    Args, Raises:
        As for `bootstrap_auc_interval`; columns: C x [n] p(yes) of the same pairs.

    Returns:
        [B, C], or None where only one class is present.
    """
    checked = [checked_pairs(labels, scores) for scores in columns]
    labels = checked[0][0]
    group_of_pair = _group_of_pair(groups, len(labels))
    if not has_both_classes(labels):
        return None
    ranked = [_Ranked.of(labels, scores, group_of_pair) for _, scores in checked]
    liked, sizes = np.bincount(group_of_pair, weights=labels), np.bincount(group_of_pair)
    draws = (drawn for drawn in _draws(len(sizes), seed) if 0 < drawn @ liked < drawn @ sizes)
    return np.array([[each.auc(drawn) for each in ranked] for drawn in islice(draws, num_resamples)])


def resampled_means(
    columns: Sequence[np.ndarray], seed: int, num_resamples: int, *, groups: ArrayLike | None = None
) -> np.ndarray:
    """Mean of each column of numbers on each draw: C x [n] -> [B, C].

    Raises:
        DataError: not one group per pair.
    """
    group_of_pair = _group_of_pair(groups, len(columns[0]))
    sums = np.stack([np.bincount(group_of_pair, weights=values) for values in columns], axis=1)  # [groups, C]
    sizes = np.bincount(group_of_pair)
    draws = islice(_draws(len(sizes), seed), num_resamples)
    return np.array([drawn @ sums / (drawn @ sizes) for drawn in draws])


def difference_of(value: float, resampled: np.ndarray) -> Difference:
    """A difference with the interval of what it was on the draws, [B]."""
    return Difference(float(value), *_interval(resampled))


def p_value(resampled: np.ndarray) -> float:
    """Two-sided p-value of "the difference is 0", from what it was on the draws, [B].

    Twice the share of the draws on the rarer side of 0: at most 0.05 where 0 is outside of the same draws' 95 %
    interval, but for ties. Each side counts one draw more, so that no p is 0 (Davison and Hinkley, Bootstrap Methods
    and their Application, section 4.4): the least is 2 / (B + 1).
    """
    rarer = min(np.count_nonzero(resampled <= 0.0), np.count_nonzero(resampled >= 0.0))
    return min(1.0, 2.0 * (rarer + 1) / (len(resampled) + 1))


def _group_of_pair(groups: ArrayLike | None, num_pairs: int) -> np.ndarray:
    """Number of each pair's group, [n]."""
    group_of_pair = np.arange(num_pairs) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(group_of_pair) != num_pairs:
        raise DataError(f"got {len(group_of_pair):,} groups for {num_pairs:,} pairs, expected one per pair")
    return group_of_pair


def _draws(num_groups: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group was drawn, [num_groups], without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)


@dataclass(frozen=True)
class _Ranked:
    """Pairs by rising score: sorted once, and then only weighed by how often each pair's group was drawn."""

    labels: np.ndarray  # [n]
    group_of_pair: np.ndarray  # [n]
    starts: np.ndarray  # [distinct scores] first pair of each

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, group_of_pair: np.ndarray) -> Self:
        order = np.argsort(scores, kind="stable")
        return cls(labels[order], group_of_pair[order], np.flatnonzero(np.diff(scores[order], prepend=-1.0)))

    def auc(self, drawn: np.ndarray) -> float:
        weights = drawn[self.group_of_pair]
        liked = np.add.reduceat(weights * self.labels, self.starts)
        disliked = np.add.reduceat(weights, self.starts) - liked
        below = np.cumsum(disliked) - disliked
        return float((liked * (below + 0.5 * disliked)).sum() / (liked.sum() * disliked.sum()))


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
