"""Everything that the report and the terminal say about one run, as one JSON-able dict.

    {"model":       {"pairs", "positive_share", "auc", "log_loss", "calibration_error", "auc_interval": [low, high]},
     "floors":      {name: the same without the interval},
     "beats_floor": {name: whether the model's AUC is higher},
     "exits":       {"mean_exit_layer", "num_layers", "histogram": {layer as text: pairs}},
     "cold_start":  {"pairs", "metrics": as a floor's, None without such pairs},
     "throughput":  {"pairs", "seconds", "pairs_per_s"},
     "calibration": [{"mean_score", "positive_share", "count"}],
     "score_histogram": {"edges", "liked", "not_liked"},
     "roc":         {"model", "logistic regression": {"false_positive_rate", "true_positive_rate"}}}

Where the pairs are of one class only, `auc`, `auc_interval`, `beats_floor` and the ROC curves are None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import roc_curve

from optirag_core.data.schema import INTERACTIONS, SCORES, require_columns
from optirag_core.errors import DataError
from optirag_core.evaluation.floors import floor_scores
from optirag_core.evaluation.metrics import binary_metrics, bootstrap_auc_interval, calibration_bins, has_both_classes

SCORED = pa.unify_schemas([SCORES, pa.schema([INTERACTIONS.field("label")])])
"""`SCORES` and the label of each pair."""

NUM_SCORE_BINS = 40
"""Bins of 0.025: fine enough for scores that crowd in a narrow band, and still bars and not needles in a plot."""

NUM_ROC_POINTS = 101
"""Enough for a smooth line; a full curve has a point per pair."""

DRAWN_FLOOR = "logistic regression"
"""The floor whose ROC curve is kept: it sees what the others see."""


def summarize(
    scored: pa.Table,
    known: pa.Table,
    *,
    exit_layers: Sequence[int],
    num_layers: int,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """Measure a run beside the floors; the layout is on top of this file.

    Args:
        scored: `SCORED`, one row per pair.
        known: `INTERACTIONS` outside of the test split, from which the floors are made.
        exit_layers: 1-based layers where a pair may have stopped, beside the last one.
        num_layers: layers of the LLM.
        seconds: how long the scoring took.
        seed: of the bootstrap, which draws whole users.

    Raises:
        DataError: a table, score, label or exit layer is not as described, or `known` leaks (`floor_scores`).
    """
    scored = require_columns(scored, SCORED, "scored pairs")
    labels, scores = scored["label"].to_numpy(), scored["score"].to_numpy()
    model = binary_metrics(labels, scores)
    floors = floor_scores(known, scored)
    interval = bootstrap_auc_interval(labels, scores, seed, groups=scored["user_id"].to_numpy())
    floor_metrics = {name: binary_metrics(labels, values) for name, values in floors.items()}
    return {
        "model": {**model, "auc_interval": interval},
        "floors": floor_metrics,
        "beats_floor": {name: _is_higher(model["auc"], floor["auc"]) for name, floor in floor_metrics.items()},
        "exits": _exits(scored["exit_layer"], exit_layers, num_layers),
        "cold_start": _cold_start(scored),
        "throughput": _throughput(len(scored), seconds),
        "calibration": calibration_bins(labels, scores),
        "score_histogram": _score_histogram(labels, scores),
        "roc": {"model": _roc(labels, scores), DRAWN_FLOOR: _roc(labels, floors[DRAWN_FLOOR])},
    }


def best_floor(summary: Mapping[str, Any]) -> str:
    """Name of the floor with the highest AUC, the first one where there are none."""
    floors = summary["floors"]
    return max(floors, key=lambda name: floors[name]["auc"] or 0.0)


def _is_higher(model_auc: float | None, floor_auc: float | None) -> bool | None:
    return None if model_auc is None or floor_auc is None else model_auc > floor_auc


def _exits(layers: pa.ChunkedArray, exit_layers: Sequence[int], num_layers: int) -> dict[str, Any]:
    counted = {each["values"]: each["counts"] for each in pc.value_counts(layers).to_pylist()}
    allowed = sorted({*exit_layers, num_layers})
    unknown = [layer for layer in counted if layer not in allowed]
    if unknown:
        raise DataError(f"scored pairs: exit_layer {unknown[0]} is none of {', '.join(map(str, allowed))}")
    return {
        "mean_exit_layer": pc.mean(layers).as_py(),
        "num_layers": num_layers,
        "histogram": {str(layer): counted.get(layer, 0) for layer in allowed},
    }


def _cold_start(scored: pa.Table) -> dict[str, Any]:
    cold = scored.filter(scored["cold_start"])
    metrics = binary_metrics(cold["label"].to_numpy(), cold["score"].to_numpy()) if len(cold) else None
    return {"pairs": len(cold), "metrics": metrics}


def _throughput(num_pairs: int, seconds: float) -> dict[str, Any]:
    if not (math.isfinite(seconds) and seconds > 0.0):
        raise DataError(f"scoring took {seconds} seconds, expected a positive number")
    return {"pairs": num_pairs, "seconds": float(seconds), "pairs_per_s": num_pairs / seconds}


def _score_histogram(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    edges = np.linspace(0.0, 1.0, NUM_SCORE_BINS + 1)
    liked, not_liked = (np.histogram(scores[labels == label], bins=edges)[0].tolist() for label in (1, 0))
    return {"edges": edges.tolist(), "liked": liked, "not_liked": not_liked}


def _roc(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any] | None:
    if not has_both_classes(labels):
        return None
    false_positive, true_positive, _ = roc_curve(labels, scores)
    along = false_positive + true_positive  # rises from 0 to 2: steps of it follow the steep and the flat parts alike
    kept = np.unique(np.searchsorted(along, np.linspace(0.0, 2.0, NUM_ROC_POINTS)))
    return {
        "false_positive_rate": false_positive[kept].tolist(),
        "true_positive_rate": true_positive[kept].tolist(),
    }
