"""What every head says of one pair at full depth, whether or not an earlier one would have stopped it.

Shapes: m window.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from optirag_core.engine.criterion import should_exit, statistic, window_values
from optirag_core.engine.heads import p_yes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.trace import Trace


@dataclass(frozen=True)
class HeadView:
    """What one head sees of one pair."""

    layer: int  # 1-based, the last is the LLM's own head; 0 is the head on the evidence alone
    score: float  # p(yes) of this head on h^(l)
    evidence_logit: float | None  # what the evidence adds to its log-odds of yes; None: it reads none
    text_logit: float | None  # what h^(l) adds to them; None at depth 0
    in_use: bool  # the policy may stop here
    stops: bool  # its criterion holds here
    values: tuple[float, ...]  # tracked values, h^(l-m) first; at depth 0 and at full depth p(yes) alone
    statistic: float | None  # what the criterion compares with its threshold; None at full depth


def head_views(trace: Trace, pair: int, policy: ExitPolicy, layers: Collection[int]) -> list[HeadView]:
    """Every head's view of one pair of a trace, shallow to deep.

    Args:
        layers: the exit layers in use.
    """
    added = trace.evidence_added
    *of_exits, of_last = [None] * (len(trace.layers) + 1) if added is None else added[pair].tolist()
    views = [] if trace.evidence_logits is None else [_on_evidence(trace.evidence_logits[pair], policy)]
    for layer, window, known in zip(trace.layers, trace.logits[pair], of_exits, strict=True):
        in_use = layer in layers and policy.criterion != "none"
        views.append(_at_exit(layer, window[-policy.window - 1 :], known, policy, in_use=in_use))
    own = trace.final_logits[pair]
    score = p_yes(own).item()
    return [*views, HeadView(trace.shape.num_layers, score, of_last, _text(own, of_last), True, True, (score,), None)]


def _on_evidence(logits: Tensor, policy: ExitPolicy) -> HeadView:
    """Of logits [2]."""
    sure, values = policy.evidence_confidence, p_yes(logits).view(1, 1)  # [1, 1]
    return HeadView(
        layer=0,
        score=values.item(),
        evidence_logit=(logits[0] - logits[1]).item(),
        text_logit=None,
        in_use=sure is not None,
        stops=sure is not None and bool(should_exit(values, sure, "confidence").item()),
        values=(values.item(),),
        statistic=statistic(values, "confidence").item(),
    )


def _at_exit(layer: int, window: Tensor, known: float | None, policy: ExitPolicy, *, in_use: bool) -> HeadView:
    """Of a window's logits [m+1, 2]."""
    values = window_values(window[None], policy.criterion)  # [1, m+1]
    return HeadView(
        layer=layer,
        score=p_yes(window[-1]).item(),
        evidence_logit=known,
        text_logit=_text(window[-1], known),
        in_use=in_use,
        stops=bool(should_exit(values, policy.threshold, policy.criterion).item()),
        values=tuple(values[0].tolist()),
        statistic=statistic(values, policy.criterion).item(),
    )


def _text(logits: Tensor, known: float | None) -> float:
    """What is left of a head's log-odds [2] beside the evidence."""
    return (logits[0] - logits[1]).item() - (known or 0.0)
