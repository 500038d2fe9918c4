"""Each slice says how many pairs it has; one without a figure is left out."""

from optirag_core.evaluation.reproduction.document import Figure
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plots.slices import Row, draw_slices
from tests.evaluation.reproduction.plots.drawn import texts

WORDS = Words("p", "Title", "Caption.")


def test_rows_of_models() -> None:
    slices = [
        Row("0-4", 1234, {"LLM": Figure(0.6, 0.5, 0.7), "both": Figure(0.65)}),
        Row("one class", 5, {"LLM": Figure(None), "both": Figure(float("nan"))}),
        Row("5 and more", 99, {"both": Figure(0.7)}),
    ]
    picture = draw_slices(WORDS, slices, by="history length")
    shown = texts(picture)
    assert {"0-4", "1,234 pairs", "5 and more", "99 pairs", "LLM", "both", "history length", "AUC"} <= set(shown)
    assert "one class" not in shown
    assert "AUC by history length: LLM, 0-4 0.6000; both, 0-4 0.6500; both, 5 and more 0.7000." in picture.svg
    assert picture.caption == "Caption. Bars: 95 % intervals."


def test_one_slice_and_none() -> None:
    picture = draw_slices(WORDS, [Row("all", 10, {"LLM": Figure(0.6)})], by="x")
    assert "LLM" not in texts(picture)
    assert picture.caption == "Caption."
    assert draw_slices(WORDS, [Row("all", 10, {"LLM": Figure(None)})], by="x") is None
    assert draw_slices(WORDS, [], by="x") is None
