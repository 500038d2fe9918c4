"""What all plots hold to: finite numbers, ids of their own, colours of the page, names as they are."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.evaluation.reproduction.document import Document, Figure
from optirag_core.evaluation.reproduction.html import VARIABLES
from optirag_core.evaluation.reproduction.plots.curves import Step, draw_sweep
from optirag_core.evaluation.reproduction.plots.marks import MARKS, Point, Words, brief, points, side_by_side
from tests.evaluation.reproduction.plots.drawn import texts


def test_points_are_finite_and_in_order() -> None:
    nan = float("nan")
    figures = [(3, Figure(0.3, 0.2, nan)), (1, Figure(0.1, 0.05, 0.2)), (2, Figure(nan)), (4, Figure(None, 0.1, 0.2))]
    assert points(figures) == [Point(1, 0.1, 0.05, 0.2), Point(3, 0.3, 0.2, 0.3)]
    assert points([(1, Figure(0.5, 0.6, 0.7))]) == [Point(1, 0.5, 0.5, 0.7)]  # no bar may end beside its point


def test_numbers_are_short() -> None:
    assert [brief(value) for value in (12345.6, 311.0, 6.14, 0.84, 0.00123)] == [
        "12,346",
        "311",
        "6.14",
        "0.84",
        "0.00123",
    ]


def test_series_stand_side_by_side() -> None:
    assert side_by_side([0, 10], 0, 1, [0, 10], log=False) == [0, 10]
    assert side_by_side([0, 10], 1, 2, [0, 10], log=False) == pytest.approx([0.07, 10.07])
    assert side_by_side([1, 100], 1, 2, [1, 100], log=True) == pytest.approx([100**0.007, 100**1.007])


def test_marks_differ_in_more_than_colour() -> None:
    for part in zip(*MARKS, strict=True):
        assert len(set(part)) == len(MARKS)
    assert {mark.colour for mark in MARKS} <= set(VARIABLES)


def test_no_number_is_missing_and_no_id_is_twice(document: Document) -> None:
    plots = [picture.svg for section in document.sections for picture in section.pictures]
    assert len(plots) == 12
    for plot in plots:
        assert not re.search(r"\bnan\b|\binf\b", plot, re.IGNORECASE)
    ids = re.findall(r' id="([^"]+)"', "".join(plots))
    assert len(ids) == len(set(ids)) > 12


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=9), min_size=2, max_size=3))
def test_awkward_names_are_shown_as_they_are(names: list[str]) -> None:
    series = {f"{at}{name}": [Step(1, Figure(0.7), Figure(1.0))] for at, name in enumerate([*names, "$a$ <b> & |"])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw_sweep(Words("p", "T", "C."), series, setting="$x_1$")
    shown = ["".join(text.split()) for text in texts(picture)]
    assert {"".join(name.split()) for name in [*series, "$x_1$"]} <= set(shown)
