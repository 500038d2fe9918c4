"""Lines of figures with their intervals: by layer, over a setting, and shares liked by score."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from optirag_core.evaluation.metrics import CalibrationBin
from optirag_core.evaluation.plots import INK, MUTED, SIZE_IN, single_axes
from optirag_core.evaluation.reproduction.document import Figure, Picture
from optirag_core.evaluation.reproduction.plots.marks import (
    MAX_TICKS,
    PLAIN_STYLE,
    TALL_IN,
    Mark,
    Point,
    Words,
    draw_line,
    interval_note,
    key,
    marked,
    points,
    side_by_side,
    spoken,
)


@dataclass(frozen=True)
class Step:
    """One value of the setting that a sweep changes."""

    x: float
    accuracy: Figure
    cost: Figure


def draw_by_layer(words: Words, heads: Mapping[str, Mapping[int, Figure]], *, accuracy: str = "AUC") -> Picture | None:
    """A figure of each layer's head, one line per way in which heads are made.

    Source: arXiv:2501.02173v2, figure 4, has one point per data set in place of a layer's.

    Args:
        heads: series, e.g. a learning rate schedule -> layer -> figure.
        accuracy: what the figures are.
    """
    lines = _lines({name: list(row.items()) for name, row in heads.items()})
    if not lines:
        return None
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas, axes = single_axes()
        _draw(axes, lines, marked(lines), log=False)
        _ticks(axes, lines.values())
        axes.set_xlabel("layer of the head")
        axes.set_ylabel(accuracy)
        key(canvas, axes)
        return words.picture(canvas, interval_note(lines.values()), f"{accuracy} by layer: {spoken(lines)}")


def draw_sweep(
    words: Words,
    series: Mapping[str, Sequence[Step]],
    *,
    setting: str,
    accuracy: str = "AUC",
    cost: str = "pairs/s",
    log: bool = False,
    chosen: float | None = None,
) -> Picture | None:
    """Accuracy and cost over one setting, in two panels above each other; a panel without figures is left out.

    Source: arXiv:2501.02173v2, figure 6.

    Args:
        series: name -> steps.
        setting: what x is, with its unit.
        accuracy: what the upper figures are.
        cost: what the lower figures are, with their unit.
        log: x is logarithmic, and then above 0.
        chosen: the x that the system uses; marked.

    Raises:
        ValueError: x is 0 or less, where it is logarithmic.
    """
    panels = {
        accuracy: _lines({name: [(step.x, step.accuracy) for step in steps] for name, steps in series.items()}),
        cost: _lines({name: [(step.x, step.cost) for step in steps] for name, steps in series.items()}),
    }
    panels = {name: lines for name, lines in panels.items() if lines}
    if not panels:
        return None
    if log and min(step.x for steps in series.values() for step in steps) <= 0.0:
        raise ValueError(f"{words.name}: x is 0 or less, on a logarithmic axis")
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas = Canvas(TALL_IN if len(panels) == 2 else SIZE_IN, layout="constrained")
        rows = canvas.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, lines) in zip(rows, panels.items(), strict=True):
            if log:
                axes.set_xscale("log")
            _draw(axes, lines, marked(series), log=log)
            if chosen is not None:
                axes.axvline(
                    chosen, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, label=f"chosen: {chosen:g}"
                )
            axes.set_ylabel(name)
        everything = [line for lines in panels.values() for line in lines.values()]
        _ticks(rows[-1], everything)
        rows[-1].set_xlabel(setting + (", logarithmic" if log else ""))
        key(canvas, rows[0])
        label = " ".join(f"{name} by {setting}: {spoken(lines)}" for name, lines in panels.items())
        return words.picture(canvas, interval_note(everything), label)


def draw_reliability(words: Words, models: Mapping[str, Sequence[CalibrationBin]]) -> Picture | None:
    """Share liked against mean score, one line per model, with its calibration error."""
    kept = {name: bins for name, bins in models.items() if bins}
    if not kept:
        return None
    errors = {name: calibration_error(bins) for name, bins in kept.items()}
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas, axes = single_axes()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for name, mark in marked(kept).items():
            line = [Point(each.mean_score, *[each.positive_share] * 3) for each in kept[name]]
            draw_line(axes, line, mark, f"{name} {errors[name]:.4f}")
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), xticks=ticks, yticks=ticks)
        axes.set_xlabel("mean score of the bin")
        axes.set_ylabel("share liked")
        key(canvas, axes)
        reading = (
            "Bins of equal mass. On the dashed line a score means what it says; beside a name: the calibration error, "
            "the mean distance from it."
        )
        label = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
        return words.picture(canvas, reading, f"calibration error {label}.")


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean distance of score and share liked, each bin counted by its pairs."""
    distances = sum(each.count * abs(each.mean_score - each.positive_share) for each in bins)
    return distances / sum(each.count for each in bins)


def _lines(series: Mapping[str, Sequence[tuple[float, Figure]]]) -> dict[str, list[Point]]:
    lines = {name: points(row) for name, row in series.items()}
    return {name: line for name, line in lines.items() if line}


def _draw(axes: Axes, lines: Mapping[str, Sequence[Point]], marks: Mapping[str, Mark], *, log: bool) -> None:
    everywhere = [point.x for line in lines.values() for point in line]
    for place, (name, line) in enumerate(lines.items()):
        xs = side_by_side([point.x for point in line], place, len(lines), everywhere, log=log)
        draw_line(axes, line, marks[name], name if len(marks) > 1 else None, xs=xs)
    axes.margins(x=0.06, y=0.12)
    axes.grid(visible=False, axis="x")


def _ticks(axes: Axes, lines: Iterable[Sequence[Point]]) -> None:
    xs = sorted({point.x for line in lines for point in line})
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    if len(xs) <= MAX_TICKS:
        axes.set_xticks(xs)
