"""The report's plots of what was trained before the run: loss against steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from optirag_core.evaluation.plots import MODEL, OTHER, STYLE, Plot, key_above, single_axes, svg

LOSSES = {
    "retriever": ("Retriever", "BPR loss"),
    "llm": ("LLM", "log loss of the answers, and of the shown ratings where they are predicted too"),
    "exit_heads": ("Answer heads", "log loss, summed over the heads"),
}
"""Kind of artifact -> title, and what its loss is."""


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> list[Plot]:
    """One plot for each training that took a step.

    Args:
        curves: kind of artifact -> `Curve.points` of its training.
    """
    with matplotlib.rc_context(STYLE):
        return [_curve(kind, curves[kind]) for kind in LOSSES if curves.get(kind, {}).get("loss")]


def _curve(kind: str, curve: Mapping[str, Any]) -> Plot:
    title, what = LOSSES[kind]
    figure, axes = single_axes()
    steps, losses = zip(*curve["loss"], strict=True)
    axes.plot(steps, losses, color=MODEL, linewidth=1.4, label="training")
    spoken = f"{title}: training loss from {losses[0]:.4f} to {losses[-1]:.4f} in {steps[-1]:,} steps"
    if curve["validation_loss"]:
        steps, losses = zip(*curve["validation_loss"], strict=True)
        axes.plot(steps, losses, color=OTHER, linewidth=1.0, marker="o", markersize=3.5, label="validation")
        spoken += f", least validation loss {min(losses):.4f}"
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    key_above(axes)
    caption = f"Loss against steps: {what}."
    if curve["validation_loss"]:
        caption += " The validation loss is of what was held out."
    return Plot(title, caption, svg(figure, f"curve-{kind}", f"{spoken}."))
