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
from optirag_core.engine.trace import Trace
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.training.exit_features import ExitFeatures

PAPERS_WINDOW, PAPERS_THRESHOLD = 3, 0.01
"""m and tau of the main comparison (section 6)."""
RETRIEVER_ONLY, MULTI_HEAD, SINGLE_HEAD = "full depth", "multi-head exit", "single-head exit"


def papers_policy(*, window: int = PAPERS_WINDOW, threshold: float = PAPERS_THRESHOLD) -> ExitPolicy:
    """Algorithm 2."""
    return ExitPolicy("ratio", window, threshold)


def replayed(trace: Trace, choice: Choice) -> Answer:
    """Where the pairs stop under a policy, and what they answer there."""
    policy, layers = choice
    outcome = trace.outcome(policy, layers)
    full = trace.outcome(ExitPolicy("none", policy.window, 0.0, frozen_prefix_after=trace.frozen_prefix_after))
    scores = p_yes(outcome.logits).double().numpy()
    return Answer(scores, outcome.exit_layers.numpy().astype(np.int16), outcome.cost.flops / full.cost.flops)


@torch.no_grad()
def at_layer(features: ExitFeatures, head: AnswerHead, layer: int, evidence: bool) -> Answer:
    """One head for all pairs."""
    read = features.evidence if evidence else None
    scores = p_yes(head(features.at(layer), read) if layer else head(features.evidence)).double().numpy()
    return Answer(scores, np.full(len(scores), layer, dtype=np.int16))


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
    trace = Trace.of_states(features.states, heads, None, window=window)
    policies = {f"threshold {value:g}": papers_policy(threshold=value) for value in thresholds}
    policies |= {f"window {value}": papers_policy(window=value) for value in windows if value <= window}
    return {name: replayed(trace, (policy, heads.layers)) for name, policy in policies.items()}
