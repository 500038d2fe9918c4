"""What the plots share: how one series is told from the next, and its points and intervals.

Series differ in shape, dash or hatch as well as in colour.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import NamedTuple

from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from optirag_core.evaluation.plots import INK, MODEL, OTHER, SIZE_IN, STYLE, svg
from optirag_core.evaluation.reproduction.document import Figure, Picture

GREEN, PURPLE, GOLD = "#2b8a68", "#8557a6", "#94730a"
PAPER = "#ffffff"  # the page's ground, seen through hatches and hollow marks

MAX_TICKS = 10
"""More numbers than this do not fit under an axis."""

SHORT_NAME = 22
"""Letters, of which two names fit beside each other above a plot."""

LINE_IN = 0.16
"""Height of a line of names."""

INTERVALS = "Bars: 95 % intervals."

PLAIN_STYLE = {**STYLE, "text.parse_math": False, "axes.prop_cycle": cycler(color=[MODEL])}
"""A `$` in a name is no formula; and no colour comes from elsewhere."""

TALL_IN = (SIZE_IN[0], 4.4)
"""Two panels, one above the other."""


class Mark(NamedTuple):
    """How a series looks."""

    colour: str
    marker: str
    dash: tuple[int, tuple[float, ...]]
    hatch: str


MARKS = (
    Mark(MODEL, "o", (0, ()), ""),
    Mark(OTHER, "s", (0, (5, 2)), "////"),
    Mark(GREEN, "^", (0, (2, 1.5)), "...."),
    Mark(PURPLE, "D", (0, (6, 2, 1.5, 2)), "xxxx"),
    Mark(GOLD, "v", (0, (1, 1)), "----"),
    Mark(INK, "P", (0, (8, 3)), "||||"),
)


@dataclass(frozen=True)
class Words:
    """What a plot cannot know of itself."""

    name: str  # of the picture, `document.NAME`
    title: str
    caption: str  # what is measured on what; the plot adds how it is read

    def picture(self, canvas: Canvas, reading: str, label: str) -> Picture:
        """A finished plot with them.

        Args:
            reading: how to read the plot, sentences.
            label: what it shows, for those who do not see it.
        """
        return Picture(
            self.name, self.title, f"{self.caption} {reading}".strip(), svg(canvas, self.name, f"{self.title}: {label}")
        )


class Point(NamedTuple):
    """A finite figure at its place."""

    x: float
    value: float
    low: float
    high: float


def points(figures: Iterable[tuple[float, Figure]]) -> list[Point]:
    """The figures that there are, from left to right; one without an interval is its own."""
    found = []
    for x, figure in figures:
        if figure.value is not None and isfinite(figure.value):
            low, high = (figure.value if end is None or not isfinite(end) else end for end in (figure.low, figure.high))
            found.append(Point(x, figure.value, min(low, figure.value), max(high, figure.value)))
    return sorted(found)


def marked(series: Iterable[str]) -> dict[str, Mark]:
    """A mark for each name.

    Raises:
        ValueError: there are more than `MARKS`.
    """
    names = list(series)
    if len(names) > len(MARKS):
        raise ValueError(f"{len(names)} series, at most {len(MARKS)} can be told apart: draw some of {names}")
    return dict(zip(names, MARKS, strict=False))


def draw_line(
    axes: Axes, line: Sequence[Point], mark: Mark, label: str | None, *, xs: Sequence[float] | None = None
) -> None:
    """One series with its intervals.

    Args:
        label: in the key; None leaves it out there.
        xs: where to draw the points, if not at their own place.
    """
    xs = [point.x for point in line] if xs is None else xs
    axes.plot(
        xs, [point.value for point in line],
        color=mark.colour, marker=mark.marker, markersize=4.5, linewidth=1.3, linestyle=mark.dash, label=label,
    )  # fmt: skip
    if any(point.low < point.high for point in line):
        axes.errorbar(
            xs, [point.value for point in line], yerr=intervals(line),
            fmt="none", ecolor=mark.colour, elinewidth=0.9, capsize=2.0, capthick=0.9,
        )  # fmt: skip


def key(canvas: Canvas, axes: Axes) -> None:
    """Names above what is drawn, where there are any: two beside each other if they are short.

    The canvas grows with them, and not the plot shrinks.
    """
    handles, names = axes.get_legend_handles_labels()
    if names:
        columns = 2 if max(map(len, names)) <= SHORT_NAME else 1
        width, height = canvas.get_size_inches()
        canvas.set_size_inches(width, height + LINE_IN * (ceil(len(names) / columns) - 1))
        canvas.legend(handles, names, ncols=columns, loc="outside upper left", borderaxespad=0.2, handlelength=1.4)


def thinned(labels: Sequence[str]) -> list[str]:
    """As many of an axis' labels, at equal distances, as fit beside each other; the others are empty."""
    every = ceil(len(labels) / MAX_TICKS)
    return [label if place % every == 0 else "" for place, label in enumerate(labels)]


def intervals(line: Sequence[Point]) -> list[list[float]]:
    """[2, n] distances from the values down and up to the ends of their intervals."""
    return [[point.value - point.low for point in line], [point.high - point.value for point in line]]


def side_by_side(xs: Sequence[float], place: int, count: int, everywhere: Sequence[float], *, log: bool) -> list[float]:
    """Shift the x of one of `count` series a little, so that no interval hides another one.

    Args:
        everywhere: the x of all series.
    """
    step, low, high = 0.014 * (place - (count - 1) / 2), min(everywhere), max(everywhere)
    return [x * (high / low) ** step if log else x + step * (high - low) for x in xs]


def interval_note(lines: Iterable[Sequence[Point]]) -> str:
    """What the bars are, if there are any."""
    return INTERVALS if any(point.low < point.high for line in lines for point in line) else ""


def brief(value: float) -> str:
    """Three digits that count, without an exponent where that is readable."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spoken(series: Mapping[str, Sequence[Point]]) -> str:
    """The figures of some series, for those who do not see them."""
    lines = (
        f"{name} " + ", ".join(f"{point.value:.4g} at {point.x:g}" for point in line) for name, line in series.items()
    )
    return "; ".join(lines) + "."
