"""What is measured at the test pairs of one set of prompts: the paper's form for every table, and our own for one.

All of it is replayed from the hidden states of one full-depth pass (`engine.trace`), so that a policy costs no run of
the LLM; `timing` runs some of them live.

Shapes: n pairs.
"""

from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedModel

from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import NORMAL, load_calibrations
from optirag_core.engine.heads import AnswerHead, ExitHeads, lm_answer_head, p_yes
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.engine.trace import Trace
from optirag_core.evaluation.reproduction.answering import (
    MULTI_HEAD,
    RETRIEVER_ONLY,
    SINGLE_HEAD,
    at_layer,
    measured,
    on_evidence_alone,
    papers_policy,
    replayed,
    sweep,
)
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.evaluation.reproduction.variant_heads import variant_heads
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_heads
from optirag_core.training.exit_features import ExitFeatures, read_features
from optirag_core.training.policy_grid import NARROWEST, policy_grid

EVIDENCE_ALONE, BOTH, CERTIFIED = "evidence alone", "both", "certified policy"
HEAD, FIXED_RATE = "head at layer", "one rate: head at layer"
EVIDENCE_FIRST = "evidence first"
FAMILIES = ("ratio", "probability", "confidence", "entropy", "patience", EVIDENCE_FIRST)
GROUP_STOPS, SURE = (2, 4), 0.9
"""Approximations are shown with exits where a head is this sure."""


def papers_form(settings: Settings, artifacts: Artifacts, features: ExitFeatures) -> Measurement:
    """Full depth and multi-head exit with the paper's settings.

    Args:
        artifacts: whose LLM has seen the prompts of `features`, and whose `exit_features` its heads learn from.
        features: of the test pairs.
    """
    model, lm_head = _llm(artifacts)
    heads = variant_heads(settings, artifacts, model)
    return measured(features, _papers_answers(features, heads, lm_head))


def whole(settings: Settings, artifacts: Artifacts) -> Measurement:
    """Everything that is asked of the run's own prompts.

    Args:
        artifacts: of all kinds that scoring needs, and `exit_features`.
    """
    features = read_features(artifacts["exit_features"].path, "test")
    model, lm_head = _llm(artifacts)
    heads = variant_heads(settings, artifacts, model)
    single = variant_heads(settings, artifacts, model, single_head=True)
    fixed = variant_heads(settings, artifacts, model, decay=0.0)
    answers = _papers_answers(features, heads, lm_head)
    answers |= replayed(features, single, {SINGLE_HEAD: (papers_policy(), single.layers)})
    for name, each in ((HEAD, heads), (FIXED_RATE, fixed)):
        answers |= {f"{name} {layer}": at_layer(features, each[layer], layer, False) for layer in heads.layers}
    reproduce = settings.reproduce
    answers |= sweep(
        features, heads, window=settings.exit_policy.window,
        thresholds=reproduce.thresholds, windows=reproduce.windows,
    )  # fmt: skip
    answers |= dict(_ours(settings, artifacts, features))
    return measured(features, answers)


def frozen_prefix(settings: Settings, artifacts: Artifacts, features: ExitFeatures) -> Measurement:
    """The run's heads where the prefix keeps its hidden states above the first exit layer: approximate.

    Args:
        features: of the test pairs, from a pass with `frozen_prefix_after` at the first exit layer.
    """
    heads, _ = open_heads(settings, artifacts)
    exact = read_features(artifacts["exit_features"].path, "test")
    whole_cost = _trace(settings, exact, heads).outcome(ExitPolicy("none", NARROWEST, 0.0)).cost.flops
    trace, first = _trace(settings, features, heads), heads.layers[0]
    answers = {}
    for name, exits in ((f"frozen_prefix_after {first}", False), (f"frozen_prefix_after {first}, exits", True)):
        policy = ExitPolicy("confidence" if exits else "none", NARROWEST, SURE, frozen_prefix_after=first)
        outcome = trace.outcome(policy, heads.layers)
        scores, layers = p_yes(outcome.logits).double().numpy(), outcome.exit_layers.numpy().astype(np.int16)
        answers[name] = Answer(scores, layers, outcome.cost.flops / whole_cost)
    return measured(features, answers)


def _llm(artifacts: Artifacts) -> tuple[PreTrainedModel, AnswerHead]:
    model, _ = load_llm(artifacts["llm"].path)
    return model, lm_answer_head(model, load_answer_ids(artifacts["llm"].path))


def _trace(settings: Settings, features: ExitFeatures, heads: ExitHeads) -> Trace:
    evidence = features.evidence if heads.num_features else None
    return Trace.of_states(features.states, heads, evidence, window=settings.exit_policy.window)


def _papers_answers(features: ExitFeatures, heads: ExitHeads, lm_head: AnswerHead) -> dict[str, Answer]:
    full_depth = at_layer(features, lm_head, heads.num_layers, False)
    return {RETRIEVER_ONLY: full_depth, **replayed(features, heads, {MULTI_HEAD: (papers_policy(), heads.layers)})}


def _ours(settings: Settings, artifacts: Artifacts, features: ExitFeatures) -> Iterator[tuple[str, Answer]]:
    """With the evidence, where the heads read it: what it is worth, and every policy of the calibration's grid."""
    heads, _ = open_heads(settings, artifacts)
    read = bool(heads.num_features)
    if read:
        yield EVIDENCE_ALONE, on_evidence_alone(features, heads)
    yield BOTH, at_layer(features, heads[heads.num_layers], heads.num_layers, read)
    choices = {}
    certified = load_calibrations(artifacts["exit_policy"].path)[NORMAL].certified
    if certified.policy.frozen_prefix_after is None:
        choices[CERTIFIED] = (certified.policy, certified.layers)
    for choice in _side_by_side(settings, _trace(settings, features, heads)):
        choices[policy_name(choice)] = choice
    for smallest in GROUP_STOPS:
        policy = ExitPolicy("confidence", NARROWEST, SURE, group_stop=smallest)
        choices[f"group_stop {smallest}"] = (policy, heads.layers)
    yield from replayed(features, heads, choices).items()


def _side_by_side(settings: Settings, trace: Trace) -> Iterator[Choice]:
    """Of the calibration's grid: every criterion at all exit layers by its threshold, and the evidence at depth 0."""
    for policy, layers in policy_grid(settings.calibration, {None: trace}):
        if policy.evidence_confidence is not None:
            kept = not layers
        else:
            reads_one_state = policy.criterion in ("confidence", "entropy")
            widest = reads_one_state or policy.window == settings.exit_policy.window
            kept = widest and layers == trace.layers
        if kept:
            yield policy, layers


def policy_name(choice: Choice) -> str:
    """Its family and the number that sets it: `ratio, 0.01`."""
    policy, _ = choice
    if policy.evidence_confidence is not None:
        return f"{EVIDENCE_FIRST}, {policy.evidence_confidence:.3f}"
    return f"{policy.criterion}, {policy.threshold:g}"


def family(name: str) -> str | None:
    """The family of a policy; None of other answers."""
    found, comma, _ = name.partition(", ")
    return found if comma and found in FAMILIES else None


def mean_exit(answer: Answer) -> float:
    """Mean layer at which the pairs stop."""
    return float(np.mean(answer.exit_layers))
