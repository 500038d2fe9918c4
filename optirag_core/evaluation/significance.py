"""Is one predictor better than another? Paired tests on the same pairs, corrected for how many a table holds.

The test is the paired bootstrap over whole users (`bootstrap`): pairs of one user are not independent, and both
predictors meet the same draws. A table of many comparisons finds a difference by chance sooner or later, so its
p-values are corrected by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979), which holds whatever
the comparisons have to do with each other.

A method that was trained with several seeds is measured on each, and what is compared is the mean of its figures, not
the figure of its mean scores: that would be an ensemble, which is better than what anybody runs. The interval and p
tell what other users could have changed. What other seeds could have changed stands beside it as the spread, because
three seeds are too few to draw from.

Shapes: n pairs, S seeds, C columns of scores, one per predictor and seed, M comparisons, B resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import difference_of, p_value, resampled_aucs, resampled_means
from optirag_core.evaluation.metrics import answer_losses, binary_metrics

ALPHA = 0.05
"""Chance that a table of predictors of equal quality says of any two of them that they differ."""

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Spread:
    """A figure on each seed."""

    mean: float
    deviation: float | None  # standard deviation of the sample; None of one seed
    by_seed: tuple[float, ...]  # [S]

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """[S] figures."""
        values = np.asarray(values, dtype=np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        return cls(float(values.mean()), deviation, tuple(values.tolist()))


@dataclass(frozen=True)
class PairedTest:
    """One measure of a predictor less that of the reference."""

    difference: float  # mean over seeds
    interval: tuple[float, float]  # 95 %, over users
    p: float  # two-sided, of this comparison alone
    p_holm: float  # as one of its table's
    seeds: Spread  # the difference on each seed

    @property
    def is_noise(self) -> bool:
        """Whether the two cannot be told apart, given all that the table compares."""
        return self.p_holm > ALPHA


@dataclass(frozen=True)
class Comparison:
    """A predictor against the reference on the same pairs."""

    auc: PairedTest | None  # above 0 is better; None where only one class is present
    log_loss: PairedTest  # nats; below 0 is better


@dataclass(frozen=True)
class SeededMetrics:
    """How good a method is, over its seeds."""

    auc: Spread | None  # None where only one class is present
    log_loss: Spread  # nats


def compare_all(
    labels: ArrayLike,
    users: ArrayLike,
    scores: Mapping[str, ArrayLike],
    *,
    reference: str,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Comparison]:
    """Compare every predictor of a table with one of them, in AUC and in log loss.

    Both measures of all predictors are one family of M comparisons for Holm's correction.

    Args:
        labels: [n] 1 liked, 0 not liked.
        users: [n] user of each pair; the bootstrap draws whole users.
        scores: name -> [n] p(yes), or [S, n] of as many seeds; one row is compared with each seed of the other.
        reference: name of the predictor that the others are compared with.
        seed: of the bootstrap.
        num_resamples: more are drawn where M is so large that the least possible p would be noise.

    Returns:
        Name -> comparison, of all but the reference, in the order of `scores`.

    Raises:
        DataError: the reference is not among the scores, two predictors have different numbers of seeds, neither of
            them 1, not one user per pair, or as for `binary_metrics`.
    """
    if reference not in scores:
        raise DataError(f"reference {reference!r} is not among the predictors: {', '.join(scores)}")
    by_name = {name: np.atleast_2d(np.asarray(each, dtype=np.float64)) for name, each in scores.items()}
    _require_seeds(by_name, reference)
    others = [name for name in by_name if name != reference]
    num_resamples = max(num_resamples, int(2 * 2 * len(others) / ALPHA))  # M times 2 / (B + 1) stays below ALPHA
    columns, rows = [row for each in by_name.values() for row in each], _rows(by_name)  # C x [n]
    losses = [answer_losses(labels, column) for column in columns]
    figures = {
        "auc": resampled_aucs(labels, columns, seed, num_resamples, groups=users),
        "log_loss": resampled_means(losses, seed, num_resamples, groups=users),
    }
    measured = [vars(binary_metrics(labels, column)) for column in columns]
    found = {
        (name, measure): _tested([each[measure] for each in measured], drawn, rows[name], rows[reference])
        for measure, drawn in figures.items()
        if drawn is not None
        for name in others
    }
    corrected = holm([test.p for test in found.values()])
    tests = {key: replace(test, p_holm=p) for (key, test), p in zip(found.items(), corrected, strict=True)}
    return {name: Comparison(tests.get((name, "auc")), tests[name, "log_loss"]) for name in others}


def seeded_metrics(labels: ArrayLike, scores: ArrayLike) -> SeededMetrics:
    """Measure a method on each of its seeds.

    Args:
        labels: [n] 1 liked, 0 not liked.
        scores: [n] or [S, n] p(yes).

    Raises:
        DataError: as for `binary_metrics`.
    """
    measured = [binary_metrics(labels, row) for row in np.atleast_2d(np.asarray(scores, dtype=np.float64))]
    aucs = [each.auc for each in measured if each.auc is not None]
    return SeededMetrics(Spread.of(aucs) if aucs else None, Spread.of([each.log_loss for each in measured]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the same order: the k-th smallest of M times M - k + 1, never below a smaller one's."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    rising = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(rising, 1.0)
    return corrected.tolist()


def _tested(figures: Sequence[float], drawn: np.ndarray, ours: slice, theirs: slice) -> PairedTest:
    """One comparison alone.

    Args:
        figures: [C] the measure of every column of scores.
        drawn: [B, C] what it was on each draw.
        ours, theirs: columns of the predictor and of the reference.
    """
    seeds = Spread.of(np.subtract(figures[ours], figures[theirs]))
    gaps = drawn[:, ours].mean(axis=1) - drawn[:, theirs].mean(axis=1)  # [B]
    difference, p = difference_of(seeds.mean, gaps), p_value(gaps)
    return PairedTest(difference.value, (difference.low, difference.high), p, p, seeds)


def _require_seeds(by_name: Mapping[str, np.ndarray], reference: str) -> None:
    ours = len(by_name[reference])
    for name, each in by_name.items():
        if ours != len(each) and 1 not in (ours, len(each)):
            raise DataError(
                f"predictor {name!r} has scores of {len(each)} seeds, the reference {reference!r} of {ours}: expected "
                "the same number, or 1 for either"
            )


def _rows(by_name: Mapping[str, np.ndarray]) -> dict[str, slice]:
    """Where each predictor's seeds lie when all are in one list."""
    ends = np.cumsum([len(each) for each in by_name.values()]).tolist()
    return {name: slice(end - len(each), end) for (name, each), end in zip(by_name.items(), ends, strict=True)}
