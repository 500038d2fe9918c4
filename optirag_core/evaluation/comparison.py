"""What changed from one scoring run to the next: scores, exits, lists, and against labels the quality.

`before` is the run that readers get, `after` the new one. Everything but the counts is of pairs that both scored.

Shapes: n pairs of both runs, U users of theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from optirag_core.data.schema import SCORES, require_columns
from optirag_core.evaluation.bootstrap import Difference, bootstrap_auc_difference, bootstrap_mean_difference
from optirag_core.evaluation.metrics import BinaryMetrics, answer_losses, binary_metrics
from optirag_core.evaluation.per_user import top_overlap
from optirag_core.evaluation.predictors import PAIR_KEY

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class ScoreDrift:
    """|score after - score before| over the pairs."""

    mean: float
    max: float
    quantiles: dict[float, float]
    correlation: float | None  # Pearson's; None where all scores of a run are equal


@dataclass(frozen=True)
class ExitDrift:
    """Where pairs stopped."""

    before: dict[int, int]  # exit layer -> pairs
    after: dict[int, int]
    changed: float  # share of the pairs
    mean_before: float
    mean_after: float


@dataclass(frozen=True)
class TopDrift:
    """Each user's best items; of users with more than `top_k` pairs, as others' lists cannot change."""

    top_k: int
    users: int
    changed: float | None  # share of the users whose set of items is another one; None without such users
    mean_overlap: float | None  # items that are in both, as a share of top_k


@dataclass(frozen=True)
class LabelledChange:
    """Both runs against what happened; differences are after less before, intervals over users."""

    before: BinaryMetrics
    after: BinaryMetrics
    auc: Difference | None  # None where only one class is present
    log_loss: Difference  # nats; above 0 is worse


@dataclass(frozen=True)
class Comparison:
    """Two runs; without a pair that both scored there are counts alone."""

    before: str
    after: str
    pairs: int  # n
    users: int
    only_before: int  # pairs scored there alone
    only_after: int
    rejects_before: dict[str, int]  # pairs by code
    rejects_after: dict[str, int]
    score: ScoreDrift | None
    exits: ExitDrift | None
    top: TopDrift | None
    labelled: LabelledChange | None  # None without labels
    unlabelled_because: str | None  # why there are none

    @property
    def common_share(self) -> float:
        """n as a share of the pairs of the run that has more."""
        return self.pairs / max(1, self.pairs + max(self.only_before, self.only_after))

    def to_json(self) -> bytes:
        """Layers become texts; the rest keeps its type."""
        return TypeAdapter(Comparison).dump_json(self, indent=2)


@dataclass(frozen=True)
class ScoredPairs:
    """A run's name, `SCORES`, and its rejects by code."""

    name: str
    scores: pa.Table
    rejects: Mapping[str, int]


def joined_pairs(before: pa.Table, after: pa.Table) -> pa.Table:
    """The pairs of both runs, by user and item: `score`, `exit_layer` of before, and with `_after` those of after."""
    columns = [*PAIR_KEY.names, "score", "exit_layer"]
    tables = [require_columns(table, SCORES, "scores").select(columns) for table in (before, after)]
    joined = tables[0].join(tables[1], PAIR_KEY.names, join_type="inner", right_suffix="_after")
    return joined.sort_by([(name, "ascending") for name in PAIR_KEY.names])  # a join keeps no order


def compare_pairs(
    before: ScoredPairs, after: ScoredPairs, pairs: pa.Table, *, top_k: int, labels: pa.Table | str, seed: int
) -> Comparison:
    """Measure what changed.

    Args:
        pairs: `joined_pairs` [n].
        top_k: items of a user's list.
        labels: `PAIR_KEY` and `label`, at most one row per pair; or why there are none.
        seed: of the bootstraps, which draw whole users.
    """
    labelled, why = (None, labels) if isinstance(labels, str) else labelled_change(pairs, labels, seed=seed)
    return Comparison(
        before=before.name,
        after=after.name,
        pairs=len(pairs),
        users=pc.count_distinct(pairs["user_id"]).as_py(),
        only_before=len(before.scores) - len(pairs),
        only_after=len(after.scores) - len(pairs),
        rejects_before=dict(before.rejects),
        rejects_after=dict(after.rejects),
        score=_score_drift(*_both(pairs, "score")) if len(pairs) else None,
        exits=_exit_drift(*_both(pairs, "exit_layer")) if len(pairs) else None,
        top=_top_drift(pairs, top_k) if len(pairs) else None,
        labelled=labelled,
        unlabelled_because=why,
    )


def labelled_change(pairs: pa.Table, labels: pa.Table, *, seed: int) -> tuple[LabelledChange | None, str | None]:
    """Both runs against the labels of the pairs that have one, or why that cannot be said."""
    known = pairs.join(labels, PAIR_KEY.names, join_type="inner")
    if not len(known):
        return None, "no pair of both runs has a label"
    known = known.sort_by([(name, "ascending") for name in PAIR_KEY.names])
    answers, users = known["label"].to_numpy(), known["user_id"].to_numpy()
    before, after = _both(known, "score")
    losses = answer_losses(answers, after), answer_losses(answers, before)
    change = LabelledChange(
        before=binary_metrics(answers, before),
        after=binary_metrics(answers, after),
        auc=bootstrap_auc_difference(answers, after, before, seed, groups=users),
        log_loss=bootstrap_mean_difference(*losses, seed, groups=users),
    )
    return change, None


def _both(pairs: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    return pairs[column].to_numpy(), pairs[f"{column}_after"].to_numpy()


def _score_drift(before: np.ndarray, after: np.ndarray) -> ScoreDrift:
    before, after = before.astype(np.float64), after.astype(np.float64)
    gaps = np.abs(after - before)
    varies = before.std() > 0.0 and after.std() > 0.0
    return ScoreDrift(
        mean=float(gaps.mean()),
        max=float(gaps.max()),
        quantiles={share: float(value) for share, value in zip(QUANTILES, np.quantile(gaps, QUANTILES), strict=True)},
        correlation=float(np.corrcoef(before, after)[0, 1]) if varies else None,
    )


def _exit_drift(before: np.ndarray, after: np.ndarray) -> ExitDrift:
    def counted(layers: np.ndarray) -> dict[int, int]:
        return dict(zip(*(values.tolist() for values in np.unique(layers, return_counts=True)), strict=True))

    return ExitDrift(
        before=counted(before),
        after=counted(after),
        changed=float(np.mean(before != after)),
        mean_before=float(before.mean()),
        mean_after=float(after.mean()),
    )


def _top_drift(pairs: pa.Table, top_k: int) -> TopDrift:
    overlap = top_overlap(pairs, top_k)["overlap"].drop_null().to_numpy()
    if not len(overlap):
        return TopDrift(top_k, 0, None, None)
    return TopDrift(top_k, len(overlap), float(np.mean(overlap < top_k)), float(overlap.mean() / top_k))
