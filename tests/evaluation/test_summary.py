"""Each part of the summary from a handful of rows, and the whole through JSON."""

import json

import numpy as np
import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import bootstrap_auc_interval
from optirag_core.evaluation.summary import best_floor, summarize

from .conftest import interactions, scored_pairs

KNOWN = interactions([("a", "w", 1), ("a", "x", 1), ("b", "w", 0), ("b", "x", 0)])
ROWS = [  # user, item, label, score, exit layer, cold start
    ("a", "y", 1, 0.9, 2, False),
    ("a", "z", 0, 0.6, 2, False),
    ("b", "y", 1, 0.7, 6, True),
    ("b", "z", 0, 0.2, 4, True),
]


def summarized(rows, **changes):
    return summarize(
        scored_pairs(rows), KNOWN, **({"exit_layers": (2, 4, 5), "num_layers": 6, "seconds": 0.5, "seed": 0} | changes)
    )


def test_parts_by_hand():
    summary = summarized(ROWS)
    assert summary["model"]["auc"] == 1.0
    assert summary["exits"] == {
        "mean_exit_layer": 3.5,
        "num_layers": 6,
        "histogram": {"2": 2, "4": 1, "5": 0, "6": 1},
    }
    assert summary["throughput"] == {"pairs": 4, "seconds": 0.5, "pairs_per_s": 8.0}
    assert summary["cold_start"]["pairs"] == 2
    assert summary["cold_start"]["metrics"]["log_loss"] == pytest.approx(-(np.log(0.7) + np.log(0.8)) / 2, abs=1e-6)
    assert summary["beats_floor"] == dict.fromkeys(summary["floors"], True)
    assert [each["mean_score"] for each in summary["calibration"]] == pytest.approx([0.2, 0.6, 0.7, 0.9])
    histogram = summary["score_histogram"]
    assert (sum(histogram["liked"]), sum(histogram["not_liked"])) == (2, 2)
    assert histogram["edges"][np.flatnonzero(histogram["not_liked"])[0]] == pytest.approx(0.2, abs=0.025)


def test_a_model_below_its_floors_says_so():
    upside_down = [(user, item, label, 1.0 - score, *rest) for user, item, label, score, *rest in ROWS]
    summary = summarized(upside_down)
    assert summary["model"]["auc"] == 0.0
    assert summary["beats_floor"] == dict.fromkeys(summary["floors"], False)


def test_one_class_leaves_the_ranking_out():
    summary = summarized([ROWS[0], ROWS[2]])
    assert summary["model"]["auc"] is None
    assert summary["model"]["auc_interval"] is None
    assert summary["beats_floor"] == dict.fromkeys(summary["floors"], None)
    assert set(summary["roc"].values()) == {None}


def test_no_cold_start_pairs():
    assert summarized(ROWS[:2])["cold_start"] == {"pairs": 0, "metrics": None}


def test_survives_json_unchanged(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_same_seed_same_summary(world, summary):
    known, scored = world
    assert summarize(scored, known, exit_layers=(2, 4), num_layers=6, seconds=12.0, seed=0) == summary


def test_interval_draws_whole_users(world, summary):
    labels, scores, users = (world[1][name].to_numpy() for name in ("label", "score", "user_id"))
    assert summary["model"]["auc_interval"] == bootstrap_auc_interval(labels, scores, seed=0, groups=users)
    assert summary["model"]["auc_interval"] != bootstrap_auc_interval(labels, scores, seed=0)


def test_roc_keeps_its_ends_and_its_area(summary):
    for name, auc in (("model", summary["model"]["auc"]), ("logistic regression", None)):
        curve = summary["roc"][name]
        x, y = curve["false_positive_rate"], curve["true_positive_rate"]
        assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
        assert len(x) == len(y) <= 101
        assert np.trapezoid(y, x) == pytest.approx(auc or summary["floors"][name]["auc"], abs=0.005)


def test_best_floor_has_the_highest_auc(summary):
    best = best_floor(summary)
    assert all(summary["floors"][best]["auc"] >= floor["auc"] for floor in summary["floors"].values())


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (ROWS, {"exit_layers": (2, 5)}, "exit_layer 4 is none of 2, 5, 6"),
        (ROWS, {"seconds": 0.0}, "took 0.0 seconds"),
        (ROWS, {"seconds": float("nan")}, "took nan seconds"),
        ([], {}, "no scored pairs"),
        ([("a", "y", 1, 1.2, 2, False)], {}, "score is 1.2"),
        ([("a", "w", 1, 0.9, 2, False)], {}, "among the known interactions"),
    ],
)
def test_bad_input_is_named(rows, changes, message):
    with pytest.raises(DataError, match=message):
        summarized(rows, **changes)


def test_scored_pairs_need_labels():
    with pytest.raises(DataError, match="'label' is missing"):
        summarize(
            scored_pairs(ROWS).drop_columns(["label"]), KNOWN, exit_layers=(2,), num_layers=6, seconds=1.0, seed=0
        )
