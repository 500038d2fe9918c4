"""Grouped bars: times on a logarithmic axis, and where pairs stop."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from math import floor, isfinite, log10

import matplotlib
from matplotlib.axes import Axes

from optirag_core.evaluation.plots import INK, single_axes
from optirag_core.evaluation.reproduction.document import Picture
from optirag_core.evaluation.reproduction.plots.marks import PAPER, PLAIN_STYLE, Words, brief, key, marked, thinned

LABELLED_BARS = 12
"""More bars than this leave no room for a number above each."""

LETTERS = 48
"""So many fit under the bars, of all groups together."""


def draw_times(words: Words, times: Mapping[str, Mapping[str, float]], *, unit: str = "s") -> Picture | None:
    """Times by group, one bar per method, on a logarithmic axis.

    Source: arXiv:2501.02173v2, figure 3.

    Args:
        times: group, e.g. a data set or a number of users -> method -> time; what is not above 0 is left out.
        unit: of the times.
    """
    kept = {group: {name: time for name, time in row.items() if _is_time(time)} for group, row in times.items()}
    kept = {group: row for group, row in kept.items() if row}
    if not kept:
        return None
    names = list(dict.fromkeys(name for row in kept.values() for name in row))
    everything = [time for row in kept.values() for time in row.values()]
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas, axes = single_axes()
        axes.set_yscale("log")
        _grouped(axes, {name: [row.get(name) for row in kept.values()] for name in names}, brief)
        key(canvas, axes)
        axes.set_ylim(10 ** floor(log10(min(everything)) - 0.3), 3.0 * max(everything))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.{max(0, -round(log10(value)))}f}")
        axes.minorticks_off()
        axes.set_xticks(range(len(kept)), [_group_name(group, row, len(kept)) for group, row in kept.items()])
        axes.set_ylabel(f"time, {unit}, logarithmic")
        label = "; ".join(
            f"{group}: " + ", ".join(f"{name} {brief(time)} {unit}" for name, time in row.items())
            for group, row in kept.items()
        )
        reading = "Each line of the axis is ten times the one below it."
        if len(names) > 1:
            reading += " Under a name: how many times as long the slowest takes as the fastest."
        return words.picture(canvas, reading, f"{label}.")


def draw_exit_layers(words: Words, pairs: Mapping[str, Mapping[int, int]]) -> Picture | None:
    """Share of the pairs by the layer at which they were decided, one bar per policy.

    Args:
        pairs: policy -> exit layer -> pairs.
    """
    kept = {name: counts for name, counts in pairs.items() if sum(counts.values())}
    if not kept:
        return None
    layers = sorted({layer for counts in kept.values() for layer in counts})
    shares = {
        name: [100.0 * counts.get(layer, 0) / sum(counts.values()) for layer in layers] for name, counts in kept.items()
    }
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas, axes = single_axes()
        _grouped(axes, shares, lambda share: f"{share:.1f}" if share else "")
        key(canvas, axes)
        axes.set_xticks(range(len(layers)), thinned([str(layer) for layer in layers]))
        axes.margins(y=0.12)
        axes.set_xlabel("exit layer")
        axes.set_ylabel("% of the pairs")
        label = "; ".join(
            f"{name}: " + ", ".join(f"layer {layer} {share:.1f} %" for layer, share in zip(layers, row, strict=True))
            for name, row in shares.items()
        )
        return words.picture(canvas, "The bars of one policy add up to 100 %.", f"{label}.")


def _is_time(time: float) -> bool:
    return isfinite(time) and time > 0.0


def _group_name(group: str, row: Mapping[str, float], num_groups: int) -> str:
    name = textwrap.fill(group, max(8, LETTERS // num_groups))
    return name if len(row) == 1 else f"{name}\n{brief(max(row.values()) / min(row.values()))}\N{MULTIPLICATION SIGN}"


def _grouped(axes: Axes, series: Mapping[str, Sequence[float | None]], shown: Callable[[float], str]) -> None:
    """Bars side by side at 0, 1, ...; with their numbers where there is room."""
    width = 0.8 / len(series)
    marks = marked(series)
    num_groups = max(len(values) for values in series.values())
    for place, (name, values) in enumerate(series.items()):
        shift = width * (place - (len(series) - 1) / 2)
        bars = {group + shift: value for group, value in enumerate(values) if value is not None}
        drawn = axes.bar(
            list(bars), list(bars.values()), 0.92 * width,
            color=marks[name].colour, hatch=marks[name].hatch, edgecolor=PAPER, linewidth=0,
            label=name if len(series) > 1 else None,
        )  # fmt: skip
        if num_groups * len(series) <= LABELLED_BARS:
            axes.bar_label(drawn, labels=[shown(value) for value in bars.values()], padding=2, color=INK)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.6, num_groups - 0.4)
