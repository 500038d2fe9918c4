"""Bars say each time, how many times one is another, and what share of the pairs stops where."""

import pytest

from optirag_core.evaluation.reproduction.plots.bars import draw_exit_layers, draw_times
from optirag_core.evaluation.reproduction.plots.marks import Words
from tests.evaluation.reproduction.plots.drawn import texts

WORDS = Words("p", "Title", "Caption.")
TIMES = "\N{MULTIPLICATION SIGN}"


def test_times_are_told_with_their_ratio() -> None:
    picture = draw_times(WORDS, {"small": {"GCN": 0.5, "LLM": 25.0}, "large": {"GCN": 2.0, "LLM": 1234.0}})
    shown = texts(picture)
    assert {"0.5", "25", "2", "1,234", f"50{TIMES}", f"617{TIMES}", "GCN", "LLM", "time, s, logarithmic"} <= set(shown)
    assert "small: GCN 0.5 s, LLM 25 s; large: GCN 2 s, LLM 1,234 s." in picture.svg
    assert "how many times as long" in picture.caption


def test_one_time_alone() -> None:
    picture = draw_times(WORDS, {"all": {"GCN": 3.0}}, unit="ms")
    shown = texts(picture)
    assert "time, ms, logarithmic" in shown
    assert not [text for text in shown if TIMES in text]
    assert "how many times as long" not in picture.caption


def test_times_that_are_none_are_left_out() -> None:
    picture = draw_times(WORDS, {"a": {"GCN": 0.0, "LLM": 2.0}, "b": {"GCN": float("nan")}})
    assert "a: LLM 2 s." in picture.svg
    assert draw_times(WORDS, {"b": {"GCN": float("nan")}, "c": {}}) is None
    assert draw_times(WORDS, {}) is None


def test_many_bars_have_no_numbers_above() -> None:
    few, many = ({f"{n} users": {"GCN": n + 0.125, "LLM": 10.0 * n} for n in range(1, count)} for count in (4, 9))
    assert "1.12" in texts(draw_times(WORDS, few))
    assert "1.12" not in texts(draw_times(WORDS, many))


def test_shares_of_the_exit_layers() -> None:
    picture = draw_exit_layers(WORDS, {"certified": {5: 30, 10: 10}, "paper's": {10: 1, 32: 3}})
    assert "certified: layer 5 75.0 %, layer 10 25.0 %, layer 32 0.0 %" in picture.svg
    assert {"75.0", "25.0", "5", "10", "32", "certified", "paper's", "exit layer"} <= set(texts(picture))


def test_one_layer_and_none() -> None:
    assert "layer 32 100.0 %." in draw_exit_layers(WORDS, {"full depth": {32: 7}}).svg
    assert draw_exit_layers(WORDS, {"a": {}, "b": {5: 0}}) is None
    assert draw_exit_layers(WORDS, {}) is None


def test_more_series_than_can_be_told_apart() -> None:
    with pytest.raises(ValueError, match="7 series, at most 6"):
        draw_exit_layers(WORDS, {str(number): {5: 1} for number in range(7)})
