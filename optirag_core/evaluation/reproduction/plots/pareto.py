"""Accuracy against cost: which exit policies no other one beats in both."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes

from optirag_core.evaluation.plots import INK, MUTED, single_axes
from optirag_core.evaluation.reproduction.document import Figure, Picture
from optirag_core.evaluation.reproduction.plots.marks import (
    PAPER,
    PLAIN_STYLE,
    Point,
    Words,
    intervals,
    key,
    marked,
    points,
)

BELOW = 0.6
"""So much beside the front, in heights of the front, is shown of the policies that it beats: the worst would press it
flat."""

READING = "The line joins the policies that no other one beats in both; bars: their 95 % intervals."


@dataclass(frozen=True)
class Choice:
    """One policy, measured."""

    name: str
    flops_share: float  # of full depth, in [0, 1]
    accuracy: Figure


def draw_pareto(
    words: Words,
    families: Mapping[str, Sequence[Choice]],
    *,
    accuracy: str = "AUC",
    higher_is_better: bool = True,
    chosen: str | None = None,
) -> Picture | None:
    """Draw all policies, join those that no other one beats, and ring the chosen one.

    Args:
        families: e.g. criterion -> its policies.
        accuracy: what the figures are.
        higher_is_better: as AUC; not as log loss.
        chosen: name of the policy that the calibration took.
    """
    drawn = {name: _points(row) for name, row in families.items()}
    drawn = {name: row for name, row in drawn.items() if row}
    if not drawn:
        return None
    front = frontier((point for row in drawn.values() for point in row), higher_is_better=higher_is_better)
    ringed = _points([each for row in families.values() for each in row if each.name == chosen])[:1]
    with matplotlib.rc_context(PLAIN_STYLE):
        canvas, axes = single_axes()
        _draw_front(axes, front, ringed)
        _draw_families(axes, drawn)
        if ringed:
            axes.scatter(
                ringed[0].x, ringed[0].value,
                s=110, facecolors="none", edgecolors=INK, linewidths=1.3, zorder=3, label="chosen",
            )  # fmt: skip
        num_unseen = _show_near(axes, drawn, [*front, *ringed], higher_is_better=higher_is_better)
        axes.set_xlabel("% of full depth's FLOPs")
        axes.set_ylabel(accuracy)
        key(canvas, axes)
        reading, num_policies = READING, sum(map(len, drawn.values()))
        if ringed:
            reading += f" Ringed: {chosen}."
        if num_unseen:
            reading += f" Not drawn, as far worse: {num_unseen:,} of {num_policies:,} policies."
        label = ", ".join(f"{each.value:.4f} at {each.x:.1f} %" for each in front)
        return words.picture(canvas, reading, f"of {num_policies:,} policies, the best have {accuracy} {label}.")


def frontier(choices: Iterable[Point], *, higher_is_better: bool) -> list[Point]:
    """Those that no other one beats, from the cheapest: cheaper and as accurate, or more accurate at the same cost."""
    sign = 1.0 if higher_is_better else -1.0
    front: list[Point] = []
    for point in sorted(choices, key=lambda each: (each.x, -sign * each.value)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


def _points(choices: Sequence[Choice]) -> list[Point]:
    return points((100.0 * each.flops_share, each.accuracy) for each in choices)


def _draw_front(axes: Axes, front: Sequence[Point], ringed: Sequence[Point]) -> None:
    axes.plot([each.x for each in front], [each.value for each in front], color=INK, linewidth=0.9, zorder=1)
    telling = [*front, *(point for point in ringed if point not in front)]
    axes.errorbar(
        [each.x for each in telling], [each.value for each in telling], yerr=intervals(telling),
        fmt="none", ecolor=MUTED, elinewidth=0.8, capsize=2.0, zorder=1,
    )  # fmt: skip


def _draw_families(axes: Axes, drawn: Mapping[str, Sequence[Point]]) -> None:
    for name, mark in marked(drawn).items():
        axes.scatter(
            [each.x for each in drawn[name]], [each.value for each in drawn[name]],
            s=22, color=mark.colour, marker=mark.marker, edgecolors=PAPER, linewidths=0.4, zorder=2, label=name,
        )  # fmt: skip


def _show_near(
    axes: Axes, drawn: Mapping[str, Sequence[Point]], telling: Sequence[Point], *, higher_is_better: bool
) -> int:
    """Show what tells something, and what is near it; returns how many policies are outside."""
    low, high = min(each.low for each in telling), max(each.high for each in telling)
    near, far = 0.1 * (high - low), BELOW * (high - low)
    low, high = (low - far, high + near) if higher_is_better else (low - near, high + far)
    if low == high:
        return 0
    axes.set_ylim(low, high)
    return sum(not low <= point.value <= high for row in drawn.values() for point in row)
