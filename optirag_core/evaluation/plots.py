"""The plots of the report, as SVG that stands inline in HTML."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optirag_core.evaluation.quality import Quality
from optirag_core.evaluation.summary import Exits, Summary

INK, MUTED, RULE = "#1f2933", "#5f6b7a", "#dde2e8"
MODEL, OTHER = "#1d5b99", "#c2703d"  # blue and rust: apart for colour-blind readers and in grey print

SIZE_IN = (4.2, 3.2)  # 302 pt wide: the 8.5 pt text is still 10 px on a phone, where the plot shrinks to the screen
STYLE = {
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # real text: sharp, selectable, in the page's font
}
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Matplotlib's default names a web address and the time of day: two runs would not agree."""

POOLED_FROM = 15
"""Histories of at least this length look alike in a prompt (arXiv:2501.02173v2, section 9.1.1)."""


@dataclass(frozen=True)
class Plot:
    """One SVG with its words."""

    title: str
    caption: str
    svg: Markup


def draw_plots(summary: Summary, history_lengths: Mapping[str, Mapping[str, int]]) -> list[Plot]:
    """Draw what there is data for: a ROC curve needs both classes, history lengths need both splits.

    Args:
        history_lengths: split -> requests by number of earlier interactions, the number as text.
    """
    with matplotlib.rc_context(STYLE):
        plots = [_reliability(summary.model), _score_distribution(summary.model), _exit_layers(summary.exits)]
        if summary.model.roc is not None:
            plots.append(_roc(summary))
        tune, test = (_pooled(history_lengths.get(split, {})) for split in ("tune", "test"))
        if tune and test:
            plots.append(_history_lengths(tune, test))
    return plots


def _reliability(model: Quality) -> Plot:
    figure = Figure(SIZE_IN, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _diagonal(upper)
    upper.plot(
        [each.mean_score for each in model.calibration],
        [each.positive_share for each in model.calibration],
        color=MODEL,
        marker="o",
        markersize=4,
        linewidth=1.4,
        clip_on=False,
    )
    _unit_square(upper)
    upper.set_ylabel("share liked")
    histogram = model.histogram
    counts = [liked + not_liked for liked, not_liked in zip(histogram.liked, histogram.not_liked, strict=True)]
    lower.stairs(_shares(counts), histogram.edges, fill=True, color=MODEL, alpha=0.35)
    lower.set_yticks([])
    lower.set_ylabel("pairs")
    lower.set_xlabel("score")
    return Plot(
        "Reliability",
        "Share of liked pairs in bins of equal mass, against their mean score. On the dashed line a score means what "
        "it says. Below: how the scores are spread.",
        svg(
            figure,
            "reliability",
            f"Reliability diagram of the model. Calibration error {model.calibration_error:.4f}.",
        ),
    )


def _score_distribution(model: Quality) -> Plot:
    figure, axes = single_axes()
    histogram = model.histogram
    for counts, name, colour in ((histogram.not_liked, "not liked", OTHER), (histogram.liked, "liked", MODEL)):
        shares = [100.0 * share for share in _shares(counts)]
        axes.stairs(shares, histogram.edges, fill=True, color=colour, alpha=0.18)
        axes.stairs(shares, histogram.edges, baseline=None, color=colour, linewidth=1.4, label=name)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("score")
    axes.set_ylabel("% of the class")
    key_above(axes)
    liked, not_liked = sum(histogram.liked), sum(histogram.not_liked)
    return Plot(
        "Scores by label",
        "Distribution of the scores of liked and of not liked pairs, each adding up to 100 %. The less they overlap, "
        "the higher the AUC.",
        svg(figure, "scores", f"Distribution of scores: {liked:,} liked and {not_liked:,} not liked pairs."),
    )


def _exit_layers(exits: Exits) -> Plot:
    figure, axes = single_axes()
    layers = [str(layer) for layer in exits.histogram]
    shares = [100.0 * share for share in _shares(list(exits.histogram.values()))]
    bars = axes.bar(range(len(layers)), shares, width=0.62, color=MODEL)
    axes.set_xticks(range(len(layers)), layers)
    axes.bar_label(bars, labels=[f"{share:.1f} %" for share in shares], padding=3, color=INK)
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.margins(y=0.12)
    axes.set_xlabel("exit layer")
    depth = f"{exits.mean_exit_layer:.2f} of {exits.num_layers} layers"
    spoken = ", ".join(f"layer {layer} {share:.1f} %" for layer, share in zip(layers, shares, strict=True))
    return Plot(
        "Where pairs stop",
        f"Share of pairs by the layer at which they were decided; {depth} on average. The last bar went all the way.",
        svg(figure, "exits", f"Share of pairs by exit layer: {spoken}."),
    )


def _roc(summary: Summary) -> Plot:
    figure, axes = single_axes()
    best = summary.best_floor
    drawn = {best: (summary.floors[best], OTHER), "model": (summary.model, MODEL)}
    _diagonal(axes)
    for name, (quality, colour) in drawn.items():
        assert quality.roc is not None, "a floor has the model's pairs"
        axes.plot(
            quality.roc.false_positive_rate,
            quality.roc.true_positive_rate,
            color=colour,
            linewidth=1.6,
            label=f"{name} {quality.auc:.4f}",
        )
    _unit_square(axes)
    axes.set_xlabel("not liked pairs above the cut")
    axes.set_ylabel("liked pairs above the cut")
    key_above(axes)
    spoken = ", ".join(f"{name} {quality.auc:.4f}" for name, (quality, _) in drawn.items())
    return Plot(
        "ROC curve",
        "For every cut on the score: the share of liked against the share of not liked pairs above it, for the model "
        "and the best floor. The area under a line is its AUC; the dashed line is chance.",
        svg(figure, "roc", f"ROC curves, AUC: {spoken}."),
    )


def _history_lengths(tune: Mapping[int, int], test: Mapping[int, int]) -> Plot:
    figure, axes = single_axes()
    lengths = range(min(*tune, *test), POOLED_FROM + 1)
    for offset, counts, name, colour in ((-0.2, tune, "tune prompts", OTHER), (0.2, test, "test prompts", MODEL)):
        shares = [100.0 * share for share in _shares([counts.get(length, 0) for length in lengths])]
        axes.bar([length + offset for length in lengths], shares, width=0.36, color=colour, label=name)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(lengths, [str(length) for length in lengths[:-1]] + [f"{POOLED_FROM}+"])
    axes.set_xlabel("earlier interactions of the user")
    axes.set_ylabel("% of the prompts")
    key_above(axes)
    spoken = " and ".join(
        f"{counts.get(POOLED_FROM, 0) / sum(counts.values()):.1%} of the {name} prompts"
        for name, counts in (("tune", tune), ("test", test))
    )
    return Plot(
        "History lengths",
        "Earlier interactions of the user, in the prompts that the LLM was tuned on and in those it is tested on; "
        f"{POOLED_FROM} and more in one bar. Where the two differ, the LLM is tested on prompts unlike those it "
        "learned from, which can cost AUC.",
        svg(figure, "lengths", f"Earlier interactions: {POOLED_FROM} or more in {spoken}."),
    )


def _pooled(requests: Mapping[str, int]) -> Counter[int]:
    """Requests by history length, those of `POOLED_FROM` and more in one."""
    pooled = Counter[int]()
    for length, count in requests.items():
        pooled[min(int(length), POOLED_FROM)] += count
    return +pooled


def single_axes() -> tuple[Figure, Axes]:
    """A figure of the usual size."""
    figure = Figure(SIZE_IN, layout="constrained")
    return figure, figure.subplots()


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))


def _unit_square(axes: Axes) -> None:
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), xticks=ticks, yticks=ticks)


def key_above(axes: Axes) -> None:
    """Put the names of what is drawn above it, where they hide nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2, handlelength=1.4)


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def svg(figure: Figure, name: str, label: str) -> Markup:
    """Serialise for use inside HTML: one element, sized by the page, named for screen readers, ids unique per page."""
    for axes in figure.axes:
        axes.yaxis.label.set_rotation_mode("anchor")  # kept centred when the page's font is narrower than matplotlib's
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=NO_METADATA, transparent=True)
    [(view_box, body)] = re.findall(r'<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>', stream.getvalue(), re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # its `*` rule would reach the whole page
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    return Markup('<svg viewBox="{}" role="img" aria-label="{}">{}</svg>').format(view_box, label, Markup(body))
