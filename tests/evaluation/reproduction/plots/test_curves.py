"""Lines go through their figures, panels without any are left out, and calibration is counted by pairs."""

import pytest

from optirag_core.evaluation.metrics import CalibrationBin
from optirag_core.evaluation.reproduction.document import Figure
from optirag_core.evaluation.reproduction.plots.curves import (
    Step,
    calibration_error,
    draw_by_layer,
    draw_reliability,
    draw_sweep,
)
from optirag_core.evaluation.reproduction.plots.marks import Words
from tests.evaluation.reproduction.plots.drawn import texts

WORDS = Words("p", "Title", "Caption.")
NAN = Figure(float("nan"))


def test_by_layer() -> None:
    heads = {"one rate": {5: Figure(0.7, 0.6, 0.8), 10: Figure(0.75)}, "varying": {5: Figure(0.71), 10: NAN}}
    picture = draw_by_layer(WORDS, heads)
    assert "AUC by layer: one rate 0.7 at 5, 0.75 at 10; varying 0.71 at 5." in picture.svg
    assert {"5", "10", "layer of the head", "AUC", "one rate", "varying"} <= set(texts(picture))
    assert picture.caption == "Caption. Bars: 95 % intervals."


def test_one_layer_and_none() -> None:
    picture = draw_by_layer(WORDS, {"heads": {5: Figure(0.7)}})
    assert "heads" not in texts(picture)  # alone it needs no key
    assert picture.caption == "Caption."
    assert draw_by_layer(WORDS, {"heads": {5: NAN, 10: Figure(None)}, "none": {}}) is None


def test_a_sweep_has_two_panels_over_one_setting() -> None:
    steps = [Step(x, Figure(0.7 + x, 0.6 + x, 0.8 + x), Figure(100.0 * x)) for x in (0.005, 0.01, 0.1)]
    picture = draw_sweep(WORDS, {"ratio": steps}, setting="threshold", log=True, chosen=0.01)
    assert {"0.005", "0.01", "0.1", "AUC", "pairs/s", "threshold, logarithmic", "chosen: 0.01"} <= set(texts(picture))
    assert "AUC by threshold: ratio 0.705 at 0.005, 0.71 at 0.01, 0.8 at 0.1." in picture.svg
    assert "pairs/s by threshold: ratio 0.5 at 0.005, 1 at 0.01, 10 at 0.1." in picture.svg


@pytest.mark.parametrize("log", [False, True])
def test_one_step(log: bool) -> None:
    picture = draw_sweep(WORDS, {"a": [Step(3, Figure(0.7), Figure(5.0))]}, setting="window", log=log)
    assert "3" in texts(picture)


def test_a_panel_without_figures_is_left_out() -> None:
    steps = {"a": [Step(x, Figure(0.7), NAN) for x in range(3)], "b": []}
    assert "pairs/s" not in texts(draw_sweep(WORDS, steps, setting="similar users"))
    assert draw_sweep(WORDS, {"a": [Step(1, NAN, Figure(None))]}, setting="similar users") is None
    assert draw_sweep(WORDS, {}, setting="similar users") is None


def test_a_series_keeps_its_mark_in_both_panels() -> None:
    steps = {"a": [Step(1, NAN, Figure(1.0))], "b": [Step(1, Figure(0.7), Figure(2.0))]}
    assert "#1d5b99" in draw_sweep(WORDS, {"a": steps["a"], "b": []}, setting="x").svg
    both = draw_sweep(WORDS, steps, setting="x").svg
    upper = both[: both.index("axes_2")] if "axes_2" in both else both[: both.index("pairs/s</text>")]
    assert "#c2703d" in upper


def test_a_logarithm_of_zero() -> None:
    with pytest.raises(ValueError, match="x is 0 or less"):
        draw_sweep(WORDS, {"a": [Step(0.0, Figure(0.7), Figure(1.0))]}, setting="threshold", log=True)


def test_many_steps_do_not_all_have_a_number() -> None:
    steps = [Step(x, Figure(0.7), Figure(1.0)) for x in range(40)]
    assert "39" not in texts(draw_sweep(WORDS, {"a": steps}, setting="x"))


def test_reliability() -> None:
    bins = [CalibrationBin(0.2, 0.1, 30), CalibrationBin(0.8, 0.4, 10)]
    assert calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.4) / 40)
    picture = draw_reliability(WORDS, {"LLM": bins, "none": [], "both": bins[:1]})
    assert {"LLM 0.1750", "both 0.1000", "mean score of the bin", "share liked"} <= set(texts(picture))
    assert draw_reliability(WORDS, {"none": []}) is None
