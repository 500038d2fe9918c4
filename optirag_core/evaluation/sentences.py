"""What the report says in words; a difference whose interval holds 0 is called noise, whatever its sign."""

from dataclasses import dataclass

from optirag_core.engine.certificate import Calibration
from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.bootstrap import Difference
from optirag_core.evaluation.summary import Summary
from optirag_core.evaluation.worth import Gain, Worth

NOISE = "nothing that can be told from noise"


@dataclass(frozen=True)
class Headline:
    """The first sentence of the report."""

    good: bool  # above every floor, and not by noise alone
    text: str


@dataclass(frozen=True)
class Standing:
    """How a floor compares with the model."""

    beats: bool  # the model's AUC, and not by noise alone
    text: str  # the difference in words


def signed(value: float) -> str:
    """Four decimals, with the sign; no minus before nothing."""
    return f"{round(value, 4) + 0.0:+.4f}"


def interval(difference: Difference) -> str:
    return f"{signed(difference.low)} to {signed(difference.high)}"


def paired(difference: Difference) -> str:
    """A difference with its interval."""
    return f"{signed(difference.value)} (95 %: {interval(difference)})"


def headline(summary: Summary) -> Headline:
    """The model beside its floors, and the best of them paired with it."""
    best, floors = summary.best_floor, summary.floors
    over_best = summary.over_floors[best]
    if over_best is None:
        return Headline(False, "All pairs have the same label, so nothing can be ranked and there is no AUC.")
    not_beaten = [name for name in floors if name not in summary.beaten_floors]
    if not_beaten:
        text = f"The model does not beat {len(not_beaten)} of {len(floors)} floors: {', '.join(not_beaten)}."
    else:
        text = "The model's AUC is above every floor."
    text += f" From the best floor, {best}, its AUC differs by {paired(over_best)}"
    text += f": {NOISE}." if over_best.is_noise else "."
    return Headline(not not_beaten and not over_best.is_noise, text)


def standing(over_floor: Difference | None) -> Standing:
    """
    Args:
        over_floor: the model's AUC less the floor's.
    """
    if over_floor is None:
        return Standing(beats=False, text="")
    value, low, high = over_floor
    if value == 0.0:
        return Standing(beats=False, text="AUC equal to the model")
    side, (low, high) = ("above", (-high, -low)) if value < 0.0 else ("below", (low, high))
    if over_floor.is_noise:
        text = f"not told apart from the model: AUC {abs(value):.4f} {side} it ({low:.4f} to {high:.4f})"
        return Standing(beats=False, text=text)
    if value < 0.0:
        return Standing(beats=True, text=f"beats the model by {-value:.4f} AUC ({low:.4f} to {high:.4f})")
    return Standing(beats=False, text=f"AUC {value:.4f} below the model ({low:.4f} to {high:.4f})")


def worth_sentences(worth: Worth) -> list[str]:
    """What each part adds to the other."""
    if worth.over_evidence is None or worth.over_llm is None:
        return ["The heads read no evidence: the LLM stands alone, and the floors above are what it compares with."]
    return [
        _adds("The LLM", "the evidence", worth.over_evidence),
        _adds("The evidence", "the LLM", worth.over_llm),
    ]


def worth_gains(worth: Worth) -> list[tuple[str, Gain]]:
    """Every paired difference that was measured, with its name."""
    gains = {
        "Both less evidence alone": worth.over_evidence,
        "Both less LLM alone": worth.over_llm,
        "Run less full depth": worth.exits,
        **{f"LLM alone less {name}": gain for name, gain in worth.llm_over_floors.items()},
    }
    return [(name, gain) for name, gain in gains.items() if gain]


def policy_sentences(policy: ExitPolicy, calibration: Calibration | None, exits: Gain | None) -> list[str]:
    """What decided where the run's pairs stop, by what right, and what it changed.

    Args:
        policy: the run's.
        calibration: where it comes from; None for a policy that was named by hand.
        exits: the run's scores less those of full depth, where they were measured.
    """
    if policy.criterion == "none" and policy.evidence_confidence is policy.frozen_prefix_after is None:
        chosen = f" {calibration.statement.capitalize()}." if calibration else ""
        return [f"Every pair went through all layers.{chosen}"]
    if calibration is None:
        right = "Uncertified: the policy was named by hand, and nothing bounds what it costs."
    else:
        right = f"Certified: {calibration.statement}."
    return [right, *([_changed(exits)] if exits else [])]


def policy_words(policy: ExitPolicy) -> str:
    """The rule by which pairs stop."""
    words: list[str] = [policy.criterion] if policy.criterion != "none" else []
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


def _changed(exits: Gain) -> str:
    changes = [] if exits.auc is None else [f"AUC by {paired(exits.auc)}"]
    changes.append(f"log loss in nats by {paired(exits.log_loss)}")
    return f"On the scored pairs, stopping early changed {' and '.join(changes)}, against full depth."


def _adds(part: str, other: str, gain: Gain) -> str:
    """What `both` has over the other part alone; log loss where there is no ranking."""
    name, difference, better = "log loss", gain.log_loss, gain.log_loss.value < 0.0
    if gain.auc is not None:
        name, difference, better = "AUC", gain.auc, gain.auc.value > 0.0
    if difference.is_noise:
        return f"{part} adds {NOISE} to {other}: {name} {paired(difference)}."
    return f"{part} {'adds to' if better else 'takes from'} {other}: {name} {paired(difference)}."
