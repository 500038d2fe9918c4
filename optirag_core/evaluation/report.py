"""A run's summary as one self-contained HTML file, and as a short table for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from optirag_core.evaluation.figures import draw_plots
from optirag_core.evaluation.summary import best_floor

TEMPLATE = "report.html.jinja"


class ReportContext(TypedDict):
    """What the report says besides the numbers; every text is escaped."""

    dataset: str
    model: str  # in words, e.g. "Llama, 6 layers, 1.7 M parameters, from scratch"
    split: str  # method in words
    shuffled_order: bool  # the publisher gives no time: the order is a seeded shuffle
    warnings: Sequence[str]
    provenance: Mapping[str, object]  # artifact digests, seed, code version: name -> value


def write_report(path: Path, summary: Mapping[str, Any], context: ReportContext) -> None:
    """Write the report; the file needs nothing else, neither beside it nor from a network.

    Args:
        path: the HTML file.
        summary: as `summarize` returns it, also after a round trip through JSON.
        context: as `ReportContext` describes; a missing key is an error.
    """
    html = page(
        TEMPLATE,
        summary=summary,
        context=context,
        best=best_floor(summary),
        verdict=_verdict(summary),
        standings={name: _standing(summary["model"], floor) for name, floor in summary["floors"].items()},
        plots=draw_plots(summary),
    )
    path.write_text(html, encoding="utf-8")


def page(template: str, **values: Any) -> str:
    """A template of this folder with every value escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(template).render(**values)


def console_table(summary: Mapping[str, Any]) -> str:
    """Lines of name and value: the model, the floors beside it, cost."""
    model, exits, interval = summary["model"], summary["exits"], summary["model"]["auc_interval"]
    rows = [
        ("pairs", f"{model['pairs']:,}"),
        ("AUC", _number(model["auc"])),
        ("95 % interval", "n/a" if interval is None else f"{interval[0]:.4f} - {interval[1]:.4f}"),
    ]
    for name, floor in summary["floors"].items():
        rows.append((f"floor {name}", _number(floor["auc"]) + (" beats the model" if _beats(floor, model) else "")))
    rows += [
        ("log loss", _number(model["log_loss"])),
        ("calibration error", _number(model["calibration_error"])),
        ("mean exit layer", f"{exits['mean_exit_layer']:.2f} of {exits['num_layers']}"),
        ("pairs/s", f"{summary['throughput']['pairs_per_s']:,.1f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _verdict(summary: Mapping[str, Any]) -> str:
    model, floors, best = summary["model"], summary["floors"], best_floor(summary)
    if model["auc"] is None:
        return "All pairs have the same label, so nothing can be ranked and there is no AUC."
    best_auc, (low, high) = floors[best]["auc"], model["auc_interval"]
    not_beaten = [name for name, beaten in summary["beats_floor"].items() if not beaten]
    if not_beaten:
        text = f"The model does not beat {len(not_beaten)} of {len(floors)} simple floors: {', '.join(not_beaten)}."
    else:
        text = f"The model's AUC is above every simple floor, by {model['auc'] - best_auc:.4f} over the best ({best})."
    if low <= best_auc <= high:
        text += " The best floor lies within the model's 95 % interval: the difference is not established."
    return text


def _standing(model: Mapping[str, Any], floor: Mapping[str, Any]) -> dict[str, Any]:
    """How a floor compares: whether it `beats` the model's AUC, and the difference in words."""
    if model["auc"] is None:
        return {"beats": False, "text": ""}
    difference = floor["auc"] - model["auc"]
    if _beats(floor, model):
        text = f"beats the model by {difference:.4f} AUC"
    else:
        text = f"AUC {-difference:.4f} below the model" if difference else "AUC equal to the model"
    return {"beats": _beats(floor, model), "text": text}


def _beats(floor: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    return model["auc"] is not None and floor["auc"] > model["auc"]


def _number(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}"
