"""Where a predictor is good and where it is not: pairs by how much is known of the user and of the item.

Shapes: n pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from optirag_core.data.histories import Histories
from optirag_core.data.schema import INTERACTIONS, PAIRS, require_columns
from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import bootstrap_auc_interval
from optirag_core.evaluation.metrics import binary_metrics, checked_pairs

HISTORY, POPULARITY, COLD_START = "history length", "item popularity", "cold start"

BINS: Mapping[str, Sequence[int]] = {HISTORY: (0, 3, 5, 9, 15), POPULARITY: (0, 1, 2, 5, 20), COLD_START: (0, 1)}
"""Lowest value of each bin; the last one is open. 3 entries are the least that the paper's samples have, 15 the most
that its prompts show."""


@dataclass(frozen=True)
class Traits:
    """What is known of n pairs before they are scored."""

    history: np.ndarray  # [n] earlier interactions of the user that a prompt may show, counted up to 15
    popularity: np.ndarray  # [n] known interactions of the item
    cold_start: np.ndarray  # [n] bool; no similar users are known

    @classmethod
    def of(cls, pairs: pa.Table, interactions: pa.Table, cold_start: np.ndarray) -> Self:
        """Count in a data set.

        The popularity is of all interactions outside of the test split, also of those after the pair's moment: it says
        how rare an item is, and reaches no predictor.

        Args:
            pairs: `PAIRS` [n] with the moments of their requests.
            interactions: `INTERACTIONS` of all splits.
            cold_start: [n] bool, as the scores say it.
        """
        pairs = require_columns(pairs, PAIRS, "pairs")
        interactions = require_columns(interactions, INTERACTIONS, "interactions")
        return cls(_history(pairs, Histories.of(interactions)), _popularity(pairs, interactions), cold_start)


@dataclass(frozen=True)
class Slice:
    """The pairs that have some trait in common."""

    name: str  # HISTORY, POPULARITY or COLD_START
    low: int
    high: int | None  # the last value that is in it; None: no end
    pairs: int
    positive_share: float
    auc: float | None  # None where only one class is present, like the interval
    auc_interval: tuple[float, float] | None  # 95 %, over users
    log_loss: float  # nats

    @property
    def values(self) -> str:
        """Which values are in it, e.g. "3-4", "15+", "1", and of cold start "yes" or "no"."""
        if self.name == COLD_START:
            return "yes" if self.low else "no"
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def slices_of(labels: ArrayLike, scores: ArrayLike, users: ArrayLike, traits: Traits, *, seed: int) -> list[Slice]:
    """Measure a predictor on every slice that has pairs, trait by trait, from low to high.

    Args:
        labels: [n] 1 liked, 0 not liked.
        scores: [n] p(yes).
        users: [n] user of each pair; bootstraps draw whole users.
        seed: of the bootstraps.

    Raises:
        DataError: as for `binary_metrics`, or not one user and one of each trait per pair.
    """
    labels, scores = checked_pairs(labels, scores)
    users = np.asarray(users)
    columns = {HISTORY: traits.history, POPULARITY: traits.popularity, COLD_START: traits.cold_start}
    for name, column in {"user": users, **columns}.items():
        if column.shape != labels.shape:
            raise DataError(f"{name}: got {column.shape}, expected one for each of {len(labels):,} pairs")
    slices = []
    for name, values in columns.items():
        bins = np.digitize(values, BINS[name]) - 1  # [n]
        for number in np.unique(bins).tolist():
            rows = bins == number
            slices.append(_slice(name, number, labels[rows], scores[rows], users[rows], seed))
    return slices


def _slice(name: str, number: int, labels: np.ndarray, scores: np.ndarray, users: np.ndarray, seed: int) -> Slice:
    lows, metrics = BINS[name], binary_metrics(labels, scores)
    return Slice(
        name=name,
        low=lows[number],
        high=lows[number + 1] - 1 if number + 1 < len(lows) else None,
        pairs=metrics.pairs,
        positive_share=metrics.positive_share,
        auc=metrics.auc,
        auc_interval=bootstrap_auc_interval(labels, scores, seed, groups=users),
        log_loss=metrics.log_loss,
    )


def _history(pairs: pa.Table, histories: Histories) -> np.ndarray:
    """[n] entries that a prompt may show of each pair's user, by the prompt's own rule, once per request."""
    moments = pairs["as_of"].cast(pa.int64()).to_pylist(), pairs["as_of_position"].to_pylist()
    requests = [*zip(pairs["user_id"].to_pylist(), *moments, strict=True)]
    lengths: dict[tuple[str, int | None, int | None], int] = {}
    for request in requests:
        if request not in lengths:
            user_id, as_of, position = request
            past = histories.past(user_id, as_of=as_of, as_of_position=position)
            lengths[request] = len(histories.of_target(past, limit=BINS[HISTORY][-1]))
    return np.array([lengths[request] for request in requests])


def _popularity(pairs: pa.Table, interactions: pa.Table) -> np.ndarray:
    """[n] rows of each pair's item outside of the test split."""
    known = interactions.filter(pc.not_equal(interactions["split"], "test"))["item_id"]
    counted = pc.value_counts(known)
    items, counts = counted.field("values"), counted.field("counts")
    places = pc.fill_null(pc.index_in(pairs["item_id"], value_set=items), len(items)).to_numpy()
    return np.append(counts.to_numpy(), 0)[places]
