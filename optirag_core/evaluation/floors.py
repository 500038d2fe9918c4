"""Simple predictors that any model has to beat: means of the label, and a logistic regression on them.

They see what a prompt may show, which is every interaction outside of the test split, and nothing else.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.linear_model import LogisticRegression

from optirag_core.data.schema import INTERACTIONS, require_columns
from optirag_core.errors import DataError

PRIOR_WEIGHT = 3.0
"""A mean is drawn to the global mean as by so many more labels; best or near it on BookCrossing, of 1 to 20."""

PAIRS = pa.schema([INTERACTIONS.field("user_id"), INTERACTIONS.field("item_id")])

UNKNOWN = -1
"""Code of a user or item that has no known interaction."""


def floor_scores(known: pa.Table, pairs: pa.Table) -> dict[str, np.ndarray]:
    """Score pairs without any model.

    The means are smoothed, (sum + PRIOR_WEIGHT * global mean) / (count + PRIOR_WEIGHT), so that an unknown user or
    item has the global mean. The logistic regression reads the log-odds of both means and log(1 + count) of both. It
    is fitted on the known rows, each with its own label left out of its sums, counts and global mean.

    Args:
        known: `INTERACTIONS` outside of the test split.
        pairs: `user_id` and `item_id`; further columns, labels among them, are not read.

    Returns:
        Name -> [n] scores: "global mean", "user mean", "item mean", "logistic regression".

    Raises:
        DataError: a table is empty, or `known` leaks: it has test rows, or a pair that is to be scored.
    """
    known = require_columns(known, INTERACTIONS, "known interactions")
    pairs = require_columns(pairs, PAIRS, "pairs")
    if not len(pairs):
        raise DataError("there are no pairs to score")
    labels = _labels(known)
    users = _Side.of(known["user_id"], pairs["user_id"])
    items = _Side.of(known["item_id"], pairs["item_id"])
    _require_unseen(users, items, pairs)
    global_mean = labels.mean()
    return {
        "global mean": np.full(len(pairs), global_mean),
        "user mean": users.means(labels),
        "item mean": items.means(labels),
        "logistic regression": _logistic_regression(labels, users, items),
    }


@dataclass(frozen=True)
class _Side:
    """Users or items as integer codes, in the known rows and in the pairs."""

    known: np.ndarray  # [num_known]
    pairs: np.ndarray  # [n], UNKNOWN where there is no known row
    counts: np.ndarray  # [num_codes + 1] known rows of each code; the last one, which UNKNOWN reads, is 0

    @classmethod
    def of(cls, known: pa.ChunkedArray, pairs: pa.ChunkedArray) -> Self:
        encoded = known.combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy()
        found = pc.index_in(pairs, value_set=encoded.dictionary)
        counts = np.bincount(codes, minlength=len(encoded.dictionary) + 1)
        return cls(codes, pc.fill_null(found, UNKNOWN).to_numpy(), counts)

    def means(self, labels: np.ndarray) -> np.ndarray:
        """Smoothed mean for each pair."""
        sums = self._sums(labels)[self.pairs]
        return (sums + PRIOR_WEIGHT * labels.mean()) / (self.counts[self.pairs] + PRIOR_WEIGHT)

    def means_of_others(self, labels: np.ndarray) -> np.ndarray:
        """Smoothed mean for each known row over all rows but itself."""
        prior = (labels.sum() - labels) / (len(labels) - 1)
        sums = self._sums(labels)[self.known] - labels
        return (sums + PRIOR_WEIGHT * prior) / (self.counts[self.known] - 1 + PRIOR_WEIGHT)

    def _sums(self, labels: np.ndarray) -> np.ndarray:
        return np.bincount(self.known, weights=labels, minlength=len(self.counts))


def _logistic_regression(labels: np.ndarray, users: _Side, items: _Side) -> np.ndarray:
    num_liked = labels.sum()
    if min(num_liked, len(labels) - num_liked) < 2:  # without one row the rest may be of one class: no log-odds
        return np.full(len(users.pairs), labels.mean())
    sides = (users, items)
    known = _features([(side.means_of_others(labels), side.counts[side.known] - 1) for side in sides])
    pairs = _features([(side.means(labels), side.counts[side.pairs]) for side in sides])
    return LogisticRegression().fit(known, labels).predict_proba(pairs)[:, 1]


def _features(sides: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(means, counts) of users and items -> [n, 4]; log counts add 0.001-0.003 AUC on BookCrossing."""
    columns = [column for means, counts in sides for column in (np.log(means / (1.0 - means)), np.log1p(counts))]
    return np.column_stack(columns)


def _labels(known: pa.Table) -> np.ndarray:
    num_test = pc.sum(pc.equal(known["split"], "test")).as_py() or 0
    if num_test:
        raise DataError(f"known interactions hold {num_test:,} rows of the test split: a leak; pass the other splits")
    if not len(known):
        raise DataError("there are no known interactions: the floors need the rows outside of the test split")
    labels = known["label"].to_numpy().astype(np.float64)
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DataError("known interactions: a label is neither 0 nor 1")
    return labels


def _require_unseen(users: _Side, items: _Side, pairs: pa.Table) -> None:
    num_items = len(items.counts)  # one more than there are codes: UNKNOWN, on either side, makes a key of its own
    known = users.known.astype(np.int64) * num_items + items.known
    asked = users.pairs.astype(np.int64) * num_items + items.pairs
    leaked = np.isin(asked, known)
    if leaked.any():
        row = int(np.argmax(leaked))
        raise DataError(
            f"{leaked.sum():,} scored pairs are among the known interactions, a leak; the first is user "
            f"{pairs['user_id'][row]} and item {pairs['item_id'][row]}"
        )
