"""What the report says in words; a difference whose interval holds 0 is called noise, whatever its sign."""

from dataclasses import dataclass

from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.bootstrap import Difference
from optirag_core.evaluation.summary import Summary
from optirag_core.evaluation.worth import Gain, Worth
from optirag_core.training.certificate import Calibration

NOISE = "nothing that can be told from noise"


@dataclass(frozen=True)
class Verdict:
    """The first sentence of the report."""

    good: bool  # above every floor, and not by noise alone
    text: str


@dataclass(frozen=True)
class Standing:
    """How a floor compares with the model."""

    beats: bool  # the model's AUC
    text: str  # the difference in words


def signed(difference: Difference) -> str:
    """The value with its sign."""
    return f"{difference.value:+.4f}"


def interval(difference: Difference) -> str:
    return f"95 %: {difference.low:+.4f} to {difference.high:+.4f}"


def verdict(summary: Summary) -> Verdict:
    """The model beside its floors, and the best of them paired with it."""
    best, floors = summary.best_floor, summary.floors
    over_best = summary.over_floors[best]
    if over_best is None:
        return Verdict(False, "All pairs have the same label, so nothing can be ranked and there is no AUC.")
    not_beaten = [name for name in floors if name not in summary.beaten_floors]
    if not_beaten:
        text = f"The model does not beat {len(not_beaten)} of {len(floors)} floors: {', '.join(not_beaten)}."
    else:
        text = "The model's AUC is above every floor."
    text += f" Its AUC less the best floor's ({best}) is {signed(over_best)} ({interval(over_best)})"
    text += f": {NOISE}." if over_best.is_noise else "."
    return Verdict(not not_beaten and not over_best.is_noise, text)


def standing(over_floor: Difference | None) -> Standing:
    """
    Args:
        over_floor: the model's AUC less the floor's.
    """
    if over_floor is None:
        return Standing(beats=False, text="")
    value, low, high = over_floor
    if value < 0.0:
        return Standing(beats=True, text=f"beats the model by {-value:.4f} AUC ({-high:+.4f} to {-low:+.4f})")
    if value == 0.0:
        return Standing(beats=False, text="AUC equal to the model")
    return Standing(beats=False, text=f"AUC {value:.4f} below the model ({low:+.4f} to {high:+.4f})")


def worth_sentences(worth: Worth) -> list[str]:
    """What each part adds to the other."""
    if worth.over_evidence is None:
        return ["The heads read no evidence: the LLM stands alone, and the floors above are what it compares with."]
    return [
        _adds("The LLM", "the evidence", worth.over_evidence),
        _adds("The evidence", "the LLM", worth.over_llm),
    ]


def exits_sentence(exits: Gain) -> str:
    """What stopping early changed in the run's scores."""
    changes = [f"log loss by {signed(exits.log_loss)} nats ({interval(exits.log_loss)})"]
    if exits.auc is not None:
        changes.insert(0, f"AUC by {signed(exits.auc)} ({interval(exits.auc)})")
    return f"On the scored pairs, against full depth, stopping early changed {' and '.join(changes)}."


def policy_sentence(policy: ExitPolicy, calibration: Calibration | None) -> str:
    """What decided where the run's pairs stop, and by what right.

    Args:
        policy: the run's.
        calibration: where it comes from; None for a policy that was named by hand.
    """
    if calibration is not None:
        return f"Calibrated: {calibration.statement}."
    if policy.criterion == "none" and policy.evidence_confidence is None:
        return "Full depth: every pair went through all layers."
    return "Uncertified: the policy was named by hand, and nothing bounds what it costs."


def policy_words(policy: ExitPolicy) -> str:
    """The rule by which pairs stop."""
    words = [policy.criterion] if policy.criterion != "none" else []
    if policy.criterion not in ("none", "patience"):
        words.append(f"threshold {policy.threshold:g}")
    if words:
        words.append(f"window {policy.window}")
    if policy.group_stop is not None:
        words.append(f"a user's pairs stop together once fewer than {policy.group_stop} are left")
    if policy.frozen_prefix_after is not None:
        words.append(f"prefix frozen after layer {policy.frozen_prefix_after}")
    if policy.evidence_confidence is not None:
        words.append(f"evidence alone decides from {policy.evidence_confidence:.4f} sure")
    return ", ".join(words) or "none: full depth"


def _adds(part: str, other: str, gain: Gain) -> str:
    """`both` less the other part."""
    losses = f"log loss {signed(gain.log_loss)} nats ({interval(gain.log_loss)})"
    if gain.auc is None:
        return f"{part} beside {other}: {losses}."
    figures = f"AUC {signed(gain.auc)} ({interval(gain.auc)}), {losses}"
    if gain.auc.is_noise:
        return f"{part} adds {NOISE} to {other}'s ranking: {figures}."
    return f"{part} {'adds to' if gain.auc.value > 0.0 else 'takes from'} {other}'s ranking: {figures}."
