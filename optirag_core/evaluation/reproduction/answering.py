"""Hidden states of the test pairs -> what heads and exit policies answer there, by replay: the LLM does not run.

The paper's form has heads that read the hidden state alone: full depth is the LM's own head, as tuned. Ours read the
evidence beside it.

Shapes: n pairs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from optirag_core.engine.heads import AnswerHead, ExitHeads, p_yes
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.inference.variants import replays
from optirag_core.training.exit_features import ExitFeatures

PAPERS_WINDOW, PAPERS_THRESHOLD = 3, 0.01
"""m and tau of the main comparison (section 6)."""
RETRIEVER_ONLY, MULTI_HEAD, SINGLE_HEAD = "full depth", "multi-head exit", "single-head exit"


def papers_policy(*, window: int = PAPERS_WINDOW, threshold: float = PAPERS_THRESHOLD) -> ExitPolicy:
    """Algorithm 2."""
    return ExitPolicy("ratio", window, threshold)


def replayed(features: ExitFeatures, heads: ExitHeads, choices: Mapping[str, Choice]) -> dict[str, Answer]:
    """Where the pairs stop under some policies, and what they answer there."""
    found = replays(features, heads, list(choices.values()))
    return {
        name: Answer(each.scores.astype(np.float64), each.exit_layers.astype(np.int16), each.flops_share)
        for name, each in zip(choices, found, strict=True)
    }


@torch.no_grad()
def at_layer(features: ExitFeatures, head: AnswerHead, layer: int, evidence: bool) -> Answer:
    """One head for all pairs."""
    scores = p_yes(head(features.at(layer), features.evidence if evidence else None)).double().numpy()
    return Answer(scores, np.full(len(scores), layer, dtype=np.int16))


@torch.no_grad()
def on_evidence_alone(features: ExitFeatures, heads: ExitHeads) -> Answer:
    """The head at depth 0 for all pairs; the heads read evidence."""
    assert features.evidence is not None, "the heads were trained on it"
    scores = p_yes(heads.on_evidence(0)(features.evidence)).double().numpy()
    return Answer(scores, np.zeros(len(scores), dtype=np.int16), 0.0)


def measured(features: ExitFeatures, answers: Mapping[str, Answer], **facts: object) -> Measurement:
    """Answers with the pairs that they are of."""
    labels = features.labels.numpy().astype(np.int8)
    return Measurement(features.users, features.items, labels, answers, facts)


def sweep(
    features: ExitFeatures, heads: ExitHeads, *, window: int, thresholds: Sequence[float], windows: Sequence[int]
) -> dict[str, Answer]:
    """Figure 6 (b, c): algorithm 2 with another threshold or window.

    Args:
        window: the widest that the hidden states were kept for; wider ones of `windows` are left out.
    """
    policies = {f"threshold {value:g}": papers_policy(threshold=value) for value in thresholds}
    policies |= {f"window {value}": papers_policy(window=value) for value in windows if value <= window}
    return replayed(features, heads, {name: (policy, heads.layers) for name, policy in policies.items()})
