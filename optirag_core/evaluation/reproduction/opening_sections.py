"""What a reproduction opens with: what the data is, what the LLM is, and that nothing leaks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import SPLITS
from optirag_core.evaluation.leak_checks import Check
from optirag_core.evaluation.reproduction.document import Figure, Section, Table


def leaks(checks: Sequence[Check], controls: Sequence[tuple[str, Figure]]) -> Section:
    """The rules, how much was checked, and what learns from labels that were dealt out anew.

    Args:
        controls: predictor -> its AUC, learned from shuffled labels; 0.5 is right.
    """
    rows = tuple(
        (
            check.name,
            (
                Figure(check.checked, digits=0),
                Figure(check.violations, digits=0, is_failure=check.violations > 0),
                Figure(None, text=check.example or ""),
            ),
        )
        for check in checks
    )
    audit = Table(
        "leaks", "Rules", "Counted on the artifacts and on what the test prompts show.",
        ("checked", "violations", "example"), rows, "Rule",
    )  # fmt: skip
    shuffled = Table(
        "shuffled", "Labels dealt out at random",
        "Mean AUC over several deals. What learns from them knows nothing, so that 0.5 lies in the interval of the "
        "mean. After one deal a regression may be above or below it: it gives counts of which no label is part a "
        "weight of random sign.",
        ("mean AUC",), tuple((name, (_control(figure),)) for name, figure in controls), "Predictor",
    )  # fmt: skip
    text = ("No number below means anything if what is predicted can be seen before.",)
    return Section("leaks", "No leaks", text, (audit, shuffled))


def table1(dataset: Dataset) -> Section:
    """Data set statistics."""
    interactions = dataset.interactions
    labels, split = interactions["label"].to_numpy(), interactions["split"].to_numpy()
    users, items = (pc.count_distinct(interactions[name]).as_py() for name in ("user_id", "item_id"))
    counts = {
        "users": Figure(users, digits=0),
        "items": Figure(items, digits=0),
        "interactions": Figure(len(labels), digits=0),
        "density, %": Figure(100.0 * len(labels) / (users * items)),
        "liked, %": Figure(100.0 * float(labels.mean()), digits=1),
        "interactions of a user, median": Figure(_median(interactions["user_id"]), digits=0),
        "interactions of an item, median": Figure(_median(interactions["item_id"]), digits=0),
    }
    rows = [(name, (figure, Figure(None, text=""))) for name, figure in counts.items()]
    for name in SPLITS:
        of_split = split == name
        liked = Figure(100.0 * float(labels[of_split].mean()), digits=1) if of_split.any() else Figure(None)
        rows.append((f"{name} split, interactions", (Figure(int(of_split.sum()), digits=0), liked)))
    table = Table("table1", "Data set", "", ("count", "liked, %"), tuple(rows), "What")
    return Section("table1", "Table 1: data set", tuple(dataset.info["warnings"]), (table,))


def mean_over_deals(aucs: Sequence[float]) -> Figure:
    """The mean with its 95 % t interval, of at least two deals."""
    mean, half = float(np.mean(aucs)), stats.t.ppf(0.975, len(aucs) - 1) * stats.sem(aucs)
    return Figure(mean, mean - float(half), mean + float(half))


def _median(column: Any) -> float:
    return float(np.median(column.value_counts().field("counts").to_numpy()))


def _control(figure: Figure) -> Figure:
    outside = figure.low is not None and figure.high is not None and not figure.low <= 0.5 <= figure.high
    return Figure(figure.value, figure.low, figure.high, is_failure=outside)
