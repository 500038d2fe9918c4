"""Why a pair got its score: what every head says of it at full depth, what its evidence says, and where it stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.views import HeadView, head_views
from optirag_core.evidence.model import EvidenceModel


@dataclass(frozen=True)
class Explanation:
    """Of one pair's score."""

    heads: Sequence[HeadView]  # shallow to deep
    evidence_score: float | None  # p(yes) of the regression on the evidence alone; None for a group without
    stop: str  # which head stopped it and why, in one sentence
    prompt_sha256: str


def explain_group(
    scorer: Scorer, group: UserGroup, scores: Sequence[PairScore], evidence_model: EvidenceModel
) -> list[Explanation]:
    """Explain the scores of a group, by one more pass at full depth; it touches no group in flight.

    Args:
        scores: what the scorer said of the group's candidates, in their order.
        evidence_model: that standardised the group's evidence.

    Raises:
        ModelError: as `Scorer.add`.
    """
    trace = scorer.trace([group])
    known = [None] * len(scores)
    if group.evidence is not None and len(scores):
        known = evidence_model.score(np.asarray(group.evidence, dtype=np.float32)).tolist()  # [n, F] -> [n]
    explained = []
    for place, (pair, suffix) in enumerate(zip(scores, group.suffixes, strict=True)):
        views = head_views(trace, place, scorer.policy, scorer.exit_layers)
        stop = stop_sentence(pair, views, scorer.policy)
        explained.append(Explanation(views, known[place], stop, prompt_sha256(group.prefix, suffix)))
    return explained


def stop_sentence(pair: PairScore, views: Sequence[HeadView], policy: ExitPolicy) -> str:
    """Which head stopped a pair and why, in one sentence.

    The numbers are of the full-depth pass: where one is within 1e-5 of its threshold, the live run saw the other side.

    Args:
        views: of all heads, as `head_views` gives them.
    """
    layer = pair.exit_layer
    view = next(view for view in views if view.layer == layer)
    said = f"p(yes) = {pair.score:.4f} from"
    if pair.forced:
        return f"{said} {_name(layer)}: fewer than {policy.group_stop} of the user's candidates were left."
    if layer == 0:
        sure = f"it is {view.statistic:.5f} sure, at least {policy.evidence_confidence:.5f} suffices"
        return f"{said} {_name(layer)}: {sure}."
    if view is views[-1]:
        asked = "no exit head was stable" if any(other.in_use for other in views[:-1]) else "no exit head is in use"
        return f"{said} the LLM's own head at layer {layer}: {asked}."
    return f"{said} {_name(layer)}, the first that was stable: {_stable(view, policy)}."


def prompt_sha256(prefix: Sequence[int], suffix: Sequence[int]) -> str:
    """Of a prompt's token ids as little-endian int32."""
    return sha256(np.array([*prefix, *suffix], dtype="<i4").tobytes()).hexdigest()


def _name(layer: int) -> str:
    return f"the head at layer {layer}" if layer else "the head at layer 0, which reads the evidence alone"


def _stable(view: HeadView, policy: ExitPolicy) -> str:
    """Why a criterion holds."""
    found, threshold = f"{view.statistic:.5f}", f"{policy.threshold:g}"
    if policy.criterion == "confidence":
        return f"it is {found} sure, at least {threshold} suffices"
    if policy.criterion == "entropy":
        return f"its entropy is {found} nats, at most {threshold} suffices"
    if policy.criterion == "patience":
        return f"it gives one answer on all {len(view.values)} layers of its window"
    tracked = "p_yes / p_no" if policy.criterion == "ratio" else "p_yes"
    return f"the last change of {tracked} is {found} off the mean of those before, below {threshold}"
