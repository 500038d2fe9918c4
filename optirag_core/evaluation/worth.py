"""What the LLM is worth: the evidence alone, the LLM alone, both, and their differences on the same pairs.

The evidence alone is the head at depth 0, the LLM alone its own head before any training of heads, and both the trained
head at full depth. Without evidence (the paper's form) there is the LLM alone.

Shapes: n pairs, R pairs of the features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike

from optirag_core.engine.heads import AnswerHead, ExitHeads, p_yes
from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import Difference, bootstrap_auc_difference, bootstrap_mean_difference
from optirag_core.evaluation.labels import LabelledScores
from optirag_core.evaluation.metrics import BinaryMetrics, answer_losses, binary_metrics
from optirag_core.evaluation.predictors import PAIR_KEY
from optirag_core.evaluation.quality import Quality, quality
from optirag_core.training.exit_features import ExitFeatures


@dataclass(frozen=True)
class Gain:
    """What one set of scores has over another on the same pairs; intervals over users."""

    auc: Difference | None  # above 0 is better; None where only one class is present
    log_loss: Difference  # nats; below 0 is better


@dataclass(frozen=True)
class Worth:
    """Scores at full depth by what they read, and those of each layer's head."""

    llm: Quality
    evidence: Quality | None  # None without evidence, like `both` and the gains over either
    both: Quality | None
    over_evidence: Gain | None  # both less the evidence alone
    over_llm: Gain | None  # both less the LLM alone
    exits: Gain | None  # the run's scores less full depth; None without them
    layers: dict[int, BinaryMetrics]  # the head of each layer; 0 is the evidence alone, the last full depth
    llm_over_floors: dict[str, Gain] = field(default_factory=dict)  # the LLM alone less each floor


def worth(
    labels: ArrayLike,
    users: ArrayLike,
    *,
    llm: ArrayLike,
    by_layer: Mapping[int, ArrayLike],
    floors: Mapping[str, ArrayLike] | None = None,
    run: ArrayLike | None = None,
    seed: int,
) -> Worth:
    """Compare scores of the same pairs.

    Args:
        labels: [n] 1 liked, 0 not liked.
        users: [n] user of each pair; bootstraps draw whole users.
        llm: [n] p(yes) of the LM's own head.
        by_layer: layer -> [n] p(yes) of its head; with evidence, layer 0 is the evidence alone.
        floors: name -> [n] scores that the LLM alone is compared with.
        run: [n] p(yes) where the pairs really stopped.
        seed: of the bootstraps.

    Raises:
        DataError: as for `binary_metrics`, or not one user per pair.
    """

    def measured(scores: ArrayLike) -> Quality:
        return quality(labels, scores, users, seed=seed)

    def gain(scores: ArrayLike, others: ArrayLike) -> Gain:
        losses = answer_losses(labels, scores), answer_losses(labels, others)
        return Gain(
            auc=bootstrap_auc_difference(labels, scores, others, seed, groups=users),
            log_loss=bootstrap_mean_difference(*losses, seed, groups=users),
        )

    evidence, full = by_layer.get(0), by_layer[max(by_layer)]
    return Worth(
        llm=measured(llm),
        evidence=None if evidence is None else measured(evidence),
        both=None if evidence is None else measured(full),
        over_evidence=None if evidence is None else gain(full, evidence),
        over_llm=None if evidence is None else gain(full, llm),
        exits=None if run is None else gain(run, full),
        layers={layer: binary_metrics(labels, by_layer[layer]) for layer in sorted(by_layer)},
        llm_over_floors={name: gain(llm, floor) for name, floor in (floors or {}).items()},
    )


@torch.no_grad()
def worth_of(
    features: ExitFeatures,
    heads: ExitHeads,
    lm_head: AnswerHead,
    labelled: LabelledScores,
    *,
    floors: Mapping[str, np.ndarray],
    seed: int,
) -> Worth:
    """Read the heads at the pairs that the run has scored.

    Args:
        features: of the test split's users, or of some of them.
        heads: trained.
        lm_head: the LM's own, as it was before.
        labelled: the run's scores.
        floors: name -> scores of the same pairs.

    Raises:
        DataError: the run has scored none of the pairs.
    """
    rows, scored = _common(features, labelled)
    evidence = None if features.evidence is None else features.evidence[rows]

    def scores(head: AnswerHead, layer: int) -> np.ndarray:
        return p_yes(head(features.at(layer)[rows], evidence)).double().numpy()

    by_layer = {layer: scores(heads[layer], layer) for layer in (*heads.layers, heads.num_layers)}
    if heads.num_features:
        by_layer[0] = p_yes(heads.on_evidence(0)(evidence)).double().numpy()
    return worth(
        labelled.labels[scored],
        labelled.users[scored],
        llm=scores(lm_head, heads.num_layers),
        by_layer=by_layer,
        floors={name: floor[scored] for name, floor in floors.items()},
        run=labelled.scores[scored],
        seed=seed,
    )


def _common(features: ExitFeatures, labelled: LabelledScores) -> tuple[np.ndarray, np.ndarray]:
    """Row in the features and in the scores of each pair that is in both."""
    ours = pa.table([pa.array(features.users), pa.array(features.items)], names=PAIR_KEY.names)
    ours = ours.append_column("row", pa.array(range(len(ours)), pa.int64()))
    scored = labelled.pairs.select(PAIR_KEY.names).append_column(
        "scored", pa.array(range(len(labelled.pairs)), pa.int64())
    )
    joined = ours.join(scored, PAIR_KEY.names, join_type="inner").sort_by("scored")  # a join keeps no order
    if not len(joined):
        raise DataError(
            "the run has scored none of the test pairs whose hidden states exit_features holds: run exit_features, "
            "train_exit_heads and score with the same requests.max_users"
        )
    return joined["row"].to_numpy().copy(), joined["scored"].to_numpy()  # torch warns of what it may not write to
