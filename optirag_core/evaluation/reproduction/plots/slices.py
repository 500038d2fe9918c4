"""How accurate the score is for parts of the pairs: by history length, item popularity, cold start."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure as Canvas

from optirag_core.evaluation.plots import SIZE_IN
from optirag_core.evaluation.reproduction.document import Figure, Picture
from optirag_core.evaluation.reproduction.plots.marks import (
    PLAIN_STYLE,
    Words,
    interval_note,
    intervals,
    key,
    marked,
    points,
)

INCHES_AROUND, INCHES_PER_ROW = 1.0, 0.36
LETTERS = 20
"""In a line of a slice's name."""

SHIFT = 0.22
"""Between the models of a slice, in rows."""


@dataclass(frozen=True)
class Row:
    """Some of the pairs, as the plot shows them."""

    name: str
    pairs: int
    figures: Mapping[str, Figure]  # model -> its figure on them


def draw_slices(words: Words, slices: Sequence[Row], *, by: str, accuracy: str = "AUC") -> Picture | None:
    """A row per slice, a point with its interval per model; a slice without any figure is left out.

    Args:
        by: what the slices differ in.
        accuracy: what the figures are.
    """
    kept = [each for each in slices if points((0.0, figure) for figure in each.figures.values())]
    if not kept:
        return None
    models = list(dict.fromkeys(model for each in kept for model in each.figures))
    height = INCHES_AROUND + INCHES_PER_ROW * len(kept) * (1.0 + 0.35 * (len(models) - 1))
    rows, said = [], []
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas = Canvas((SIZE_IN[0], height), layout="constrained")
        axes = canvas.subplots()
        for place, (model, mark) in enumerate(marked(models).items()):
            row = points((at, each.figures[model]) for at, each in enumerate(kept) if model in each.figures)
            shift = SHIFT * (place - (len(models) - 1) / 2)
            axes.errorbar(
                [point.value for point in row], [point.x + shift for point in row], xerr=intervals(row),
                fmt=mark.marker, color=mark.colour, markersize=4.5, elinewidth=0.9, capsize=2.0,
                label=model if len(models) > 1 else None,
            )  # fmt: skip
            rows.append(row)
            said += [f"{model}, {kept[int(point.x)].name} {point.value:.4f}" for point in row]
        axes.set_yticks(
            range(len(kept)), [f"{textwrap.fill(each.name, LETTERS)}\n{each.pairs:,} pairs" for each in kept]
        )
        axes.set_ylim(len(kept) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(accuracy)
        axes.set_ylabel(by)
        key(canvas, axes)
        return words.picture(canvas, interval_note(rows), f"{accuracy} by {by}: {'; '.join(said)}.")
