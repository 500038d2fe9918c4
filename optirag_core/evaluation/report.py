"""The evaluation report: a summary as one self-contained HTML file, and as a short table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optirag_core.engine.certificate import Calibration
from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation import sentences
from optirag_core.evaluation.exit_plots import draw_calibration, draw_worth
from optirag_core.evaluation.html_page import html_page, number
from optirag_core.evaluation.plots import draw_plots
from optirag_core.evaluation.sentences import paired, standing
from optirag_core.evaluation.summary import Summary
from optirag_core.evaluation.training_plots import draw_curves
from optirag_core.evaluation.worth import Worth

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
    curves: Mapping[str, Mapping[str, Any]]  # kind of artifact -> `Curve.points` of its training
    provenance: Mapping[str, object]  # artifact digests, seed, code version: name -> value
    exit_policy: ExitPolicy  # the run's
    calibration: Calibration | None  # that chose it; None for a policy named by hand


def write_report(path: Path, summary: Summary, context: ReportContext) -> None:
    """Write the HTML file; it needs nothing else, neither beside it nor from a network."""
    calibration = context.calibration
    html = html_page(
        TEMPLATE,
        summary=summary,
        context=context,
        words=sentences,
        worth_plot=None if summary.worth is None else draw_worth(summary.worth),
        calibration_plot=draw_calibration(calibration) if calibration and calibration.num_users else None,
        plots=draw_plots(summary, context.history_lengths),
        curves=draw_curves(context.curves),
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
        beats = standing(summary.over_floors[name]).beats
        rows.append((f"floor {name}", number(floor.auc) + (" beats the model" if beats else "")))
    rows += [
        *_worth_rows(summary.worth),
        ("log loss", number(model.log_loss)),
        ("calibration error", number(model.calibration_error)),
        ("mean exit layer", f"{exits.mean_exit_layer:.2f} of {exits.num_layers}"),
        ("pairs/s", f"{summary.run.pairs_per_scorer_second:,.1f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _worth_rows(worth: Worth | None) -> list[tuple[str, str]]:
    if worth is None:
        return []
    if worth.evidence is None or worth.both is None or worth.over_evidence is None:
        return [("LLM alone", number(worth.llm.auc))]
    added = worth.over_evidence.auc
    return [
        ("evidence alone", number(worth.evidence.auc)),
        ("LLM alone", number(worth.llm.auc)),
        ("both", number(worth.both.auc)),
        ("LLM adds", "n/a" if added is None else paired(added) + (", noise" if added.is_noise else "")),
    ]
