"""Simple predictors that any model has to beat: means of the label, and logistic regressions on them and on evidence.

A mean is smoothed, (sum + PRIOR_WEIGHT * global mean) / (count + PRIOR_WEIGHT), so that an unknown user or item has the
global mean. Each function is a `Predictor` (`optirag_core.evaluation.predictors`, which checks both tables for leaks).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.linear_model import LogisticRegression

from optirag_core.evaluation.known import Known
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.fitting import fit_model

PRIOR_WEIGHT = 3.0
"""Weight of the global mean, in labels: best or near it on BookCrossing, of 1 to 20."""

UNKNOWN = -1
"""Code of a user or item that has no known interaction."""


def global_mean(known: Known, pairs: pa.Table) -> np.ndarray:
    """The share of liked known rows, for every pair."""
    return np.full(len(pairs), _labels(known.interactions).mean())


def user_mean(known: Known, pairs: pa.Table) -> np.ndarray:
    """The smoothed mean of each pair's user."""
    return _Side.of(known.interactions, pairs, "user_id").means(_labels(known.interactions))


def item_mean(known: Known, pairs: pa.Table) -> np.ndarray:
    """The smoothed mean of each pair's item."""
    return _Side.of(known.interactions, pairs, "item_id").means(_labels(known.interactions))


def logistic_regression(known: Known, pairs: pa.Table) -> np.ndarray:
    """Regress on the log-odds of both means and log(1 + count) of both.

    It is fitted on the known rows, each with its own label left out of its sums, counts and global mean. With fewer
    than two known rows of a class it is the global mean.
    """
    labels = _labels(known.interactions)
    num_liked = labels.sum()
    if min(num_liked, len(labels) - num_liked) < 2:  # without one row the rest may be of one class: no log-odds
        return global_mean(known, pairs)
    sides = [_Side.of(known.interactions, pairs, name) for name in ("user_id", "item_id")]
    fitted_on = _features([(side.means_of_others(labels), side.counts[side.known] - 1) for side in sides])
    asked = _features([(side.means(labels), side.counts[side.pairs]) for side in sides])
    return LogisticRegression().fit(fitted_on, labels).predict_proba(asked)[:, 1]


def strong_regression(known: Known, pairs: pa.Table) -> np.ndarray:
    """Regress on all evidence: of user, item, its attributes, and the user with each attribute.

    Test AUC on BookCrossing (explicit > 7, leave-last-out, 12,106 pairs; `logistic_regression` 0.7193): with user and
    item 0.7160, and author 0.7368, and publisher 0.7374, and star residuals 0.7460; the year of print adds nothing.
    """
    evidence = Evidence.of(known.interactions, known.items, known.attributes)
    model = fit_model(evidence, known.interactions)
    return model.score(model.standardise(evidence.features(pairs)))


@dataclass(frozen=True)
class _Side:
    """Users or items as integer codes, in the known rows and in the pairs."""

    known: np.ndarray  # [num_known]
    pairs: np.ndarray  # [n], UNKNOWN where there is no known row
    counts: np.ndarray  # [num_codes + 1] known rows of each code; the last one, which UNKNOWN reads, is 0

    @classmethod
    def of(cls, known: pa.Table, pairs: pa.Table, name: str) -> Self:
        encoded = known[name].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy()
        found = pc.index_in(pairs[name], value_set=encoded.dictionary)
        counts = np.bincount(codes, minlength=len(encoded.dictionary) + 1)
        return cls(codes, pc.fill_null(found, UNKNOWN).to_numpy(), counts)

    def means(self, labels: np.ndarray) -> np.ndarray:
        """Smoothed mean for each pair, [n]."""
        sums = self._sums(labels)[self.pairs]
        return (sums + PRIOR_WEIGHT * labels.mean()) / (self.counts[self.pairs] + PRIOR_WEIGHT)

    def means_of_others(self, labels: np.ndarray) -> np.ndarray:
        """Smoothed mean for each known row over all rows but itself, [num_known]."""
        prior = (labels.sum() - labels) / (len(labels) - 1)
        sums = self._sums(labels)[self.known] - labels
        return (sums + PRIOR_WEIGHT * prior) / (self.counts[self.known] - 1 + PRIOR_WEIGHT)

    def _sums(self, labels: np.ndarray) -> np.ndarray:
        return np.bincount(self.known, weights=labels, minlength=len(self.counts))


def _labels(known: pa.Table) -> np.ndarray:
    return known["label"].to_numpy().astype(np.float64)


def _features(sides: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(means, counts) of users and items -> [n, 4]; log counts add 0.001-0.003 AUC on BookCrossing."""
    columns = [column for means, counts in sides for column in (np.log(means / (1.0 - means)), np.log1p(counts))]
    return np.column_stack(columns)
