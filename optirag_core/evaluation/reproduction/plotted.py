"""What a plot draws, as the table that is folded below it and that the Parquet has."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optirag_core.evaluation.metrics import CalibrationBin
from optirag_core.evaluation.reproduction.document import Figure, Picture, Table
from optirag_core.evaluation.reproduction.plots.curves import Step
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plots.pareto import Choice
from optirag_core.evaluation.reproduction.plots.slices import Row

SHARE = "FLOPs, % of full depth"


def drawn(picture: Picture | None, numbers: Table | None = None) -> tuple[Picture, ...]:
    """A plot with its numbers; none where there was nothing to draw."""
    return () if picture is None else (replace(picture, numbers=numbers),)


def by_layer(words: Words, heads: Mapping[str, Mapping[int, Figure]]) -> Table:
    """A row per layer, a column per way in which heads are made."""
    layers = sorted({layer for figures in heads.values() for layer in figures})
    rows = [(str(layer), [figures.get(layer, Figure(None)) for figures in heads.values()]) for layer in layers]
    return _table(words, tuple(heads), rows, "Layer")


def sweep(words: Words, steps: Sequence[Step], *, setting: str, cost: str = "pairs/s") -> Table:
    """A row per value of the setting."""
    return _table(words, ("AUC", cost), [(f"{step.x:g}", (step.accuracy, step.cost)) for step in steps], setting)


def choices(words: Words, families: Mapping[str, Sequence[Choice]], *, accuracy: str) -> Table:
    """A row per policy, of whatever family."""
    rows = [
        (choice.name, (choice.accuracy, Figure(100.0 * choice.flops_share, digits=1)))
        for family in families.values()
        for choice in family
    ]
    return _table(words, (accuracy, SHARE), rows, "Policy")


def reliability(words: Words, bins: Mapping[str, Sequence[CalibrationBin]]) -> Table:
    """A row per model and bin."""
    rows = [
        (f"{name}, bin {number}", (Figure(each.mean_score), Figure(each.positive_share), Figure(each.count, digits=0)))
        for name, of in bins.items()
        for number, each in enumerate(of, start=1)
    ]
    return _table(words, ("mean score", "share liked", "pairs"), rows, "Score")


def exit_layers(words: Words, pairs: Mapping[str, Mapping[int, int]]) -> Table:
    """A row per layer, a column per policy: pairs that stop there."""
    layers = sorted({layer for counts in pairs.values() for layer in counts})
    rows = [(str(layer), [Figure(counts.get(layer, 0), digits=0) for counts in pairs.values()]) for layer in layers]
    return _table(words, tuple(pairs), rows, "Layer")


def slices(words: Words, rows: Sequence[Row]) -> Table:
    """A row per slice, a column per model."""
    models = list(dict.fromkeys(model for row in rows for model in row.figures))
    cells = [
        (row.name, (Figure(row.pairs, digits=0), *(row.figures.get(model, Figure(None)) for model in models)))
        for row in rows
    ]
    return _table(words, ("pairs", *models), cells, "Pairs")


def _table(
    words: Words, columns: tuple[str, ...], rows: Sequence[tuple[str, Sequence[Figure]]], row_title: str
) -> Table:
    as_tuples = tuple((name, tuple(figures)) for name, figures in rows)
    return Table(words.name, words.title, "", columns, as_tuples, row_title)
