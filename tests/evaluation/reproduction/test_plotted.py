"""The tables of what plots draw, by hand."""

import pytest
from markupsafe import Markup

from optirag_core.evaluation.metrics import CalibrationBin
from optirag_core.evaluation.reproduction import plotted
from optirag_core.evaluation.reproduction.document import Figure, Picture, Table
from optirag_core.evaluation.reproduction.plots.curves import Step
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plots.pareto import Choice
from optirag_core.evaluation.reproduction.plots.slices import Row

WORDS = Words("name", "Title", "Caption.")
HALF, MOST = Figure(0.5, 0.4, 0.6), Figure(0.9)


def shown(table: Table) -> list[list[str]]:
    assert (table.name, table.title) == ("name", "Title")
    return [[table.row_title, *table.columns], *([row, *(each.shown for each in cells)] for row, cells in table.rows)]


def test_layers_of_which_one_way_has_fewer():
    table = plotted.by_layer(WORDS, {"by depth": {4: HALF, 2: MOST}, "one rate": {2: HALF}})

    assert shown(table) == [
        ["Layer", "by depth", "one rate"], ["2", "0.9000", "0.5000"], ["4", "0.5000", "n/a"]
    ]  # fmt: skip
    assert table.rows[1][1][0] is HALF  # with its interval


@pytest.mark.parametrize("cost", ["pairs/s", plotted.SHARE])
def test_a_sweep(cost):
    table = plotted.sweep(WORDS, [Step(0.005, HALF, Figure(70.25, digits=1))], setting="threshold", cost=cost)

    assert shown(table) == [["threshold", "AUC", cost], ["0.005", "0.5000", "70.2"]]


def test_policies_of_all_families():
    families = {"ratio": [Choice("ratio 0.01", 0.25, HALF)], "the run's policy": [Choice("certified", 1.0, MOST)]}

    assert shown(plotted.choices(WORDS, families, accuracy="AUC")) == [
        ["Policy", "AUC", plotted.SHARE], ["ratio 0.01", "0.5000", "25.0"], ["certified", "0.9000", "100.0"]
    ]  # fmt: skip


def test_bins_of_scores():
    bins = {"LLM": [CalibrationBin(0.25, 0.5, 1200)], "both": [CalibrationBin(0.75, 1.0, 3)]}

    assert shown(plotted.reliability(WORDS, bins)) == [
        ["Score", "mean score", "share liked", "pairs"],
        ["LLM, bin 1", "0.2500", "0.5000", "1,200"], ["both, bin 1", "0.7500", "1.0000", "3"],
    ]  # fmt: skip


def test_layers_at_which_pairs_stop():
    table = plotted.exit_layers(WORDS, {"ours": {0: 7, 5: 1}, "algorithm 2": {3: 8}})

    assert shown(table) == [
        ["Layer", "ours", "algorithm 2"], ["0", "7", "0"], ["3", "0", "8"], ["5", "1", "0"]
    ]  # fmt: skip


def test_parts_of_the_pairs():
    rows = [Row("3-5", 40, {"both": HALF}), Row("known", 2, {"both": MOST, "floor": HALF})]

    assert shown(plotted.slices(WORDS, rows)) == [
        ["Pairs", "pairs", "both", "floor"], ["3-5", "40", "0.5000", "n/a"], ["known", "2", "0.9000", "0.5000"]
    ]  # fmt: skip


def test_no_plot_no_numbers():
    table = plotted.sweep(WORDS, [], setting="x")

    assert plotted.drawn(None, table) == ()
    [picture] = plotted.drawn(Picture("name", "Title", "", Markup("<svg/>")), table)
    assert picture.numbers is table
