"""The report's plots of what was trained before the run: loss against steps, and how the retriever ranks."""

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
    """One plot of losses for each training that took a step, and one of the retriever's ranking.

    Args:
        curves: kind of artifact -> `Curve.points` of its training; the retriever's with `recall_at_20`, `ndcg_at_20`.
    """
    with matplotlib.rc_context(STYLE):
        plots = [_curve(kind, curves[kind]) for kind in LOSSES if curves.get(kind, {}).get("loss")]
        if curves.get("retriever", {}).get("recall_at_20"):
            plots.insert(1, _ranking(curves["retriever"]))
        return plots


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


def _ranking(curve: Mapping[str, Any]) -> Plot:
    figure, axes = single_axes()
    spoken = []
    for name, label, color in (("recall_at_20", "Recall@20", MODEL), ("ndcg_at_20", "NDCG@20", OTHER)):
        steps, values = zip(*curve[name], strict=True)
        axes.plot(steps, values, color=color, linewidth=1.2, marker="o", markersize=3.5, label=label)
        spoken.append(f"{label} from {values[0]:.4f} to {values[-1]:.4f}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    key_above(axes)
    caption = "How the retriever ranks held-out items among all that a user has not trained on, after each epoch."
    return Plot("Retriever's ranking", caption, svg(figure, "ranking", f"Retriever: {', '.join(spoken)}."))
