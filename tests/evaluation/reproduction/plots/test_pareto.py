"""The joined policies are those that no other one beats; the chosen one is ringed; far worse ones are counted."""

import pytest

from optirag_core.evaluation.reproduction.document import Figure
from optirag_core.evaluation.reproduction.plots.marks import Point, Words
from optirag_core.evaluation.reproduction.plots.pareto import Choice, draw_pareto, frontier
from tests.evaluation.reproduction.plots.drawn import texts

WORDS = Words("p", "Title", "Caption.")


def point(x: float, value: float) -> Point:
    return Point(x, value, value, value)


def test_frontier() -> None:
    cheap, beaten, twin, best, dear = (
        point(10, 0.6), point(20, 0.59), point(10, 0.58), point(30, 0.7), point(40, 0.7),
    )  # fmt: skip
    assert frontier([dear, best, beaten, twin, cheap], higher_is_better=True) == [cheap, best]
    assert frontier([dear, best, beaten, twin, cheap], higher_is_better=False) == [twin]
    assert frontier([], higher_is_better=True) == []


def test_policies_are_joined_ringed_and_named() -> None:
    families = {
        "ratio": [Choice("ratio 0.01", 0.5, Figure(0.7, 0.69, 0.71)), Choice("ratio 0.1", 0.3, Figure(0.6))],
        "entropy": [Choice("entropy 1", 0.6, Figure(0.69)), Choice("nothing", 0.1, Figure(None))],
    }
    picture = draw_pareto(WORDS, families, chosen="ratio 0.01")
    assert "of 3 policies, the best have AUC 0.6000 at 30.0 %, 0.7000 at 50.0 %." in picture.svg
    assert picture.caption.endswith("Ringed: ratio 0.01.")
    assert {"ratio", "entropy", "chosen", "AUC", "% of full depth's FLOPs"} <= set(texts(picture))
    assert "chosen" not in texts(draw_pareto(WORDS, families))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_far_worse_policies_are_counted(higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    near = [Choice(str(n), n / 10, Figure(0.5 + sign * 0.01 * n)) for n in range(1, 6)]
    far = [Choice(f"far {n}", 0.9, Figure(0.5 - sign * 0.3)) for n in range(1200)]
    picture = draw_pareto(WORDS, {"a": near, "b": far}, accuracy="log loss", higher_is_better=higher_is_better)
    assert picture.caption.endswith("Not drawn, as far worse: 1,200 of 1,205 policies.")


def test_one_policy_and_none() -> None:
    picture = draw_pareto(WORDS, {"a": [Choice("full", 1.0, Figure(0.7))]}, chosen="full")
    assert "0.7000 at 100.0 %." in picture.svg
    assert draw_pareto(WORDS, {"a": [Choice("full", 1.0, Figure(float("nan")))], "b": []}) is None
