"""The exit policies that a calibration tries: every sensible combination of the settings, and none twice.

Shapes: R pairs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import torch

from optirag_core.config.exits import CalibrationSettings
from optirag_core.engine.criterion import Criterion
from optirag_core.engine.heads import p_yes
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.engine.trace import Trace

NARROWEST = 2
"""The least window of algorithm 2; criteria that look at one hidden state only take it."""


def full_depth(trace: Trace) -> Choice:
    """No pair stops before the LLM's last layer."""
    return ExitPolicy("none", NARROWEST, 0.0, frozen_prefix_after=trace.frozen_prefix_after), ()


def policy_grid(settings: CalibrationSettings, traces: Mapping[int | None, Trace]) -> list[Choice]:
    """All policies but full depth.

    Args:
        traces: frozen_prefix_after -> the trace that was made with it; the confidences at depth 0 are taken from it.
    """
    return [choice for trace in traces.values() for choice in _of_trace(settings, trace)]


def _of_trace(settings: CalibrationSettings, trace: Trace) -> Iterator[Choice]:
    everything_deep, no_layers = full_depth(trace)
    if trace.frozen_prefix_after is not None:
        yield everything_deep, no_layers
    smallest = min(trace.sizes)  # a smaller group would be forced to stop at the first head
    stops = [stop for stop in settings.group_stops if stop is None or stop <= smallest]
    suffixes = [trace.layers[first:] for first in range(len(trace.layers))]
    for sure in _evidence_confidences(settings, trace):
        if sure is not None:  # the LLM's own head, or nobody, answers the rest
            yield replace(everything_deep, evidence_confidence=sure), no_layers
        if sure == 0.5:
            continue  # nothing is left for a criterion
        rules = (rule for criterion in settings.criteria for rule in _rules(settings, trace, criterion))
        for (criterion, window, threshold), group_stop, layers in product(rules, stops, suffixes):
            yield (
                ExitPolicy(
                    criterion, window, threshold,
                    evidence_confidence=sure, group_stop=group_stop, frozen_prefix_after=trace.frozen_prefix_after,
                ),
                layers,
            )  # fmt: skip


def _rules(settings: CalibrationSettings, trace: Trace, criterion: Criterion) -> Iterator[tuple[Criterion, int, float]]:
    """Criterion, window and threshold."""
    windows = range(NARROWEST, trace.logits.size(2))  # [R, L, m+1, 2]
    if criterion == "patience":
        yield from ((criterion, window, 0.0) for window in windows)
    elif criterion == "confidence":
        yield from ((criterion, NARROWEST, 1.0 - threshold) for threshold in settings.thresholds)
    elif criterion == "entropy":
        yield from ((criterion, NARROWEST, threshold) for threshold in settings.thresholds)
    else:
        yield from product([criterion], windows, settings.thresholds)


def _evidence_confidences(settings: CalibrationSettings, trace: Trace) -> list[float | None]:
    """How sure the evidence must be so that a share of the pairs stops at depth 0; None for no pair."""
    if trace.evidence_logits is None:
        return [None]
    p = p_yes(trace.evidence_logits)  # [R]
    sure = torch.maximum(p, 1.0 - p)
    return [
        None if share == 0.0 else 0.5 if share == 1.0 else sure.double().quantile(1.0 - share).item()
        for share in settings.evidence_shares
    ]
