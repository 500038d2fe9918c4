"""The report's plots of exits: what each layer's head is worth, and what every exit policy costs and saves."""

import matplotlib
import numpy as np

from optirag_core.engine.certificate import Calibration, Candidate
from optirag_core.evaluation.plots import INK, MODEL, MUTED, OTHER, STYLE, Plot, key_above, single_axes, svg
from optirag_core.evaluation.worth import Worth

CALIBRATION_RANGE = 5.0
"""Bounds: the interesting policies lie within one, and the worst would press them into a line."""


def draw_worth(worth: Worth) -> Plot:
    """AUC of each layer's head, with the evidence alone at layer 0; log loss where only one class is present."""
    name, field = ("log loss", "log_loss") if worth.llm.auc is None else ("AUC", "auc")
    by_layer = {layer: getattr(metrics, field) for layer, metrics in worth.layers.items()}
    alone = getattr(worth.llm, field)
    heads = {layer: value for layer, value in by_layer.items() if layer}
    with matplotlib.rc_context(STYLE):
        figure, axes = single_axes()
        if 0 in by_layer:
            axes.axhline(by_layer[0], color=OTHER, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.plot([0], [by_layer[0]], "s", color=OTHER, markersize=5, label=f"evidence alone {by_layer[0]:.4f}")
        axes.plot(
            *zip(*heads.items(), strict=True), color=MODEL, marker="o", markersize=4, linewidth=1.4, label="heads"
        )
        axes.plot([max(heads)], [alone], "D", color=INK, fillstyle="none", label=f"LLM alone {alone:.4f}")
        axes.set_xticks(list(by_layer))
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.06, y=0.15)
        axes.set_xlabel("layer")
        axes.set_ylabel(name)
        key_above(axes)
        spoken = ", ".join(f"layer {layer} {value:.4f}" for layer, value in by_layer.items())
        return Plot(
            f"{name[0].upper()}{name[1:]} by layer",
            f"{name[0].upper()}{name[1:]} if all pairs stopped at that layer's head"
            + (", at layer 0 with the evidence alone and no layer of the LLM run" if 0 in by_layer else "")
            + ". The diamond is the LLM's own head before any training of heads.",
            svg(figure, "layers", f"{name} by layer: {spoken}; LLM alone {alone:.4f}."),
        )


def draw_calibration(calibration: Calibration) -> Plot:
    """Draw what every exit policy costs and saves; those far over the bound are left out."""
    bound, certified = 1000.0 * calibration.epsilon, calibration.certified
    points = [(100.0 * each.flops_share, 1000.0 * each.excess_loss, each) for each in calibration.candidates]
    shown = [point for point in points if abs(point[1]) <= CALIBRATION_RANGE * bound]
    with matplotlib.rc_context(STYLE):
        figure, axes = single_axes()
        kinds = {
            "tried": (MUTED, 5, 0.35),
            "in the order": (OTHER, 16, 1.0),
            "passed": (MODEL, 16, 1.0),
        }
        for name, (colour, size, alpha) in kinds.items():
            chosen = [(flops, loss) for flops, loss, each in shown if _kind(each) == name]
            flops_shares, losses = np.array(chosen).reshape(-1, 2).T
            axes.scatter(flops_shares, losses, s=size, color=colour, alpha=alpha, linewidths=0, label=name)
        axes.scatter(
            [100.0 * certified.flops_share], [1000.0 * certified.excess_loss],
            s=44, color=MODEL, zorder=3, clip_on=False, label="certified",
        )  # fmt: skip
        axes.axhline(bound, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=f"bound {bound:g}")
        axes.set_xlim(-2.0, 102.0)
        axes.set_xlabel("% of full depth's FLOPs")
        axes.set_ylabel("log loss added, nats / 1000")
        key_above(axes)
        label = (
            f"{len(points):,} exit policies. Certified: {certified.flops_share:.1%} of full depth's FLOPs, "
            f"{certified.excess_loss:+.5f} nats; bound {calibration.epsilon:g}."
        )
        return Plot(
            "What exits cost and save",
            f"Every exit policy that was tried, on {calibration.num_users:,} users. Other users found an order, from "
            "the safest to the cheapest, in which they are tested until one fails; the last that passed is certified: "
            f"{calibration.statement}." + _left_out(len(points) - len(shown)),
            svg(figure, "calibration", label),
        )


def _kind(candidate: Candidate) -> str:
    if candidate.accepted:
        return "passed"
    return "tried" if candidate.p_value is None else "in the order"


def _left_out(number: int) -> str:
    if not number:
        return ""
    policies = "1 policy" if number == 1 else f"{number:,} policies"
    return f" Not drawn, as further from zero than {CALIBRATION_RANGE:g} bounds: {policies}."
