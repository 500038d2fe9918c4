"""The evaluation report: a summary as one self-contained HTML file, and as a short table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optirag_core.evaluation.html_page import html_page, number
from optirag_core.evaluation.metrics import BinaryMetrics
from optirag_core.evaluation.plots import draw_plots
from optirag_core.evaluation.summary import Summary

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class ReportContext:
    """What the report says besides the summary; every text is escaped."""

    dataset: str
    model: str  # in words, e.g. "Llama, 6 layers, 1.7 M parameters, from scratch"
    split: str  # method in words
    shuffled_order: bool  # the publisher gives no time: the order is a seeded shuffle
    warnings: Sequence[str]
    history_lengths: Mapping[str, Mapping[str, int]]  # split -> requests by earlier interactions; empty if not known
    provenance: Mapping[str, object]  # artifact digests, seed, code version: name -> value


@dataclass(frozen=True)
class Standing:
    """How a floor compares with the model."""

    beats: bool  # the model's AUC
    text: str  # the difference in words


def write_report(path: Path, summary: Summary, context: ReportContext) -> None:
    """Write the HTML file; it needs nothing else, neither beside it nor from a network."""
    html = html_page(
        TEMPLATE,
        summary=summary,
        context=context,
        verdict=_verdict(summary),
        standings={name: _standing(summary.model, floor) for name, floor in summary.floors.items()},
        plots=draw_plots(summary, context.history_lengths),
    )
    path.write_text(html, encoding="utf-8")


def console_table(summary: Summary) -> str:
    """Lines of name and value: the model, the floors beside it, cost."""
    model, exits, interval = summary.model, summary.exits, summary.model.auc_interval
    rows = [
        ("pairs", f"{model.pairs:,}"),
        ("AUC", number(model.auc)),
        ("95 % interval", "n/a" if interval is None else f"{interval[0]:.4f} - {interval[1]:.4f}"),
    ]
    for name, floor in summary.floors.items():
        beats = _standing(model, floor).beats
        rows.append((f"floor {name}", number(floor.auc) + (" beats the model" if beats else "")))
    rows += [
        ("log loss", number(model.log_loss)),
        ("calibration error", number(model.calibration_error)),
        ("mean exit layer", f"{exits.mean_exit_layer:.2f} of {exits.num_layers}"),
        ("pairs/s", f"{summary.run.pairs_per_scorer_second:,.1f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _verdict(summary: Summary) -> str:
    model, floors, best = summary.model, summary.floors, summary.best_floor
    if model.auc is None:
        return "All pairs have the same label, so nothing can be ranked and there is no AUC."
    best_auc, (low, high) = floors[best].auc, model.auc_interval
    not_beaten = [name for name in floors if name not in summary.beaten_floors]
    if not_beaten:
        text = f"The model does not beat {len(not_beaten)} of {len(floors)} floors: {', '.join(not_beaten)}."
    else:
        text = f"The model's AUC is above every floor, by {model.auc - best_auc:.4f} over the best ({best})."
    if low <= best_auc <= high:
        text += " The best floor lies within the model's 95 % interval: the difference is not established."
    return text


def _standing(model: BinaryMetrics, floor: BinaryMetrics) -> Standing:
    if model.auc is None:
        return Standing(beats=False, text="")
    difference = floor.auc - model.auc
    if difference > 0.0:
        return Standing(beats=True, text=f"beats the model by {difference:.4f} AUC")
    return Standing(
        beats=False, text=f"AUC {-difference:.4f} below the model" if difference else "AUC equal to the model"
    )
