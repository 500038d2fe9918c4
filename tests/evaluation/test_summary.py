"""Each part of the summary from a handful of rows, recorded figures, and the whole through JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import bootstrap_auc_difference
from optirag_core.evaluation.predictors import PREDICTORS, predictions
from optirag_core.evaluation.summary import Exits, Summary, summarize

from .conftest import RUN, interactions, known_of, labelled

KNOWN = known_of([("a", "w", 1), ("a", "x", 1), ("b", "w", 0), ("b", "x", 0)])
ROWS = [  # user, item, label, score, exit layer, cold start
    ("a", "y", 1, 0.9, 2, False),
    ("a", "z", 0, 0.6, 2, False),
    ("b", "y", 1, 0.7, 6, True),
    ("b", "z", 0, 0.2, 4, True),
]
RECORDED = {  # of the planted world: AUC, log loss, calibration error
    "model": (0.9214395435593593, 0.353358081153781, 0.040382762072780104),
    "global mean": (0.5, 0.667734614539062, 0.007499999999999618),
    "user mean": (0.6255943237510058, 0.6600344048330462, 0.10756410256410259),
    "item mean": (0.7279643040011703, 0.5910171591618021, 0.05226342824221309),
    "logistic regression": (0.7608806963645673, 0.5588048159261134, 0.05616441703600282),
    "strong regression": (0.7702070075341966, 0.5646676153649148, 0.09580000395533932),
}


def summarized(rows, known=KNOWN, predictors=PREDICTORS, **changes):
    scored = labelled(rows)
    floors = predictions(known, scored.pairs, predictors)
    return summarize(scored, floors, RUN, **({"exit_layers": (2, 4, 5), "num_layers": 6, "seed": 0} | changes))


def test_parts_by_hand():
    summary = summarized(ROWS)
    assert summary.model.auc == 1.0
    assert summary.exits == Exits(mean_exit_layer=3.5, num_layers=6, histogram={2: 2, 4: 1, 5: 0, 6: 1})
    assert summary.cold_start.pairs == 2
    assert summary.cold_start.metrics.log_loss == pytest.approx(-(np.log(0.7) + np.log(0.8)) / 2, abs=1e-6)
    assert list(summary.floors) == summary.beaten_floors == list(PREDICTORS)


def test_figures_of_the_planted_world_are_the_recorded_ones(summary):
    measured = {"model": summary.model, **summary.floors}
    figures = {name: (each.auc, each.log_loss, each.calibration_error) for name, each in measured.items()}
    assert figures == {name: pytest.approx(values, abs=1e-7) for name, values in RECORDED.items()}
    assert summary.model.auc_interval == pytest.approx((0.8901098854451838, 0.9528630814594357), abs=1e-12)
    assert summary.exits == Exits(pytest.approx(4.008333333333334), 6, {2: 80, 4: 79, 6: 81})
    cold = summary.cold_start.metrics
    assert (cold.pairs, cold.auc) == (24, 0.8984375)
    assert (cold.log_loss, cold.calibration_error) == pytest.approx((0.44691461954052003, 0.19216510969757414))


def test_throughput_is_the_runs_own_where_it_scored_more_pairs_than_have_labels():
    run = replace(RUN, scored=600, scorer_seconds=30.0, pairs_per_scorer_second=20.5)
    scored = labelled(ROWS)
    floors = predictions(KNOWN, scored.pairs)
    summary = summarize(scored, floors, run, exit_layers=(2, 4), num_layers=6, seed=0)
    assert summary.model.pairs == 4
    assert summary.run.pairs_per_scorer_second == 20.5


def test_a_model_below_its_floors_says_so():
    upside_down = [(user, item, label, 1.0 - score, *rest) for user, item, label, score, *rest in ROWS]
    summary = summarized(upside_down)
    assert summary.model.auc == 0.0
    assert summary.beaten_floors == []


def test_a_registered_predictor_is_a_floor_like_the_others():
    def items_by_name(known, pairs):
        return np.array([{"y": 0.8, "z": 0.4}[item] for item in pairs["item_id"].to_pylist()])

    summary = summarized(ROWS, predictors=PREDICTORS | {"by name": items_by_name})
    assert summary.best_floor == "by name"
    assert summary.floors["by name"].auc == 1.0
    assert summary.floors["by name"].roc is not None
    assert summary.beaten_floors == list(PREDICTORS)


def test_every_floor_is_paired_with_the_model(world, summary):
    known, scored = world
    for name, scores in predictions(known, scored.pairs).items():
        expected = bootstrap_auc_difference(scored.labels, scored.scores, scores, seed=0, groups=scored.users)
        assert summary.over_floors[name] == expected


def test_a_pair_may_stop_before_the_first_layer():
    exits = summarized([(*ROWS[0][:4], 0, False), *ROWS[1:]], exit_layers=(0, 2, 4)).exits
    assert exits == Exits(mean_exit_layer=3.0, num_layers=6, histogram={0: 1, 2: 1, 4: 1, 6: 1})


def test_one_class_leaves_the_ranking_out():
    summary = summarized([ROWS[0], ROWS[2]])
    assert {each.auc for each in (summary.model, *summary.floors.values())} == {None}
    assert summary.beaten_floors == []
    assert set(summary.over_floors.values()) == {None}
    assert summary.best_floor == "global mean"


def test_no_cold_start_pairs():
    cold_start = summarized(ROWS[:2]).cold_start
    assert (cold_start.pairs, cold_start.metrics) == (0, None)


def test_survives_json_unchanged(summary, summary_with_worth):
    for each in (summary, summary_with_worth):
        assert Summary.from_json(each.to_json()) == each
    assert Summary.from_json(summary_with_worth.to_json()).worth.over_evidence.auc.low > 0.0
    one_class = summarized([ROWS[0], ROWS[2]])
    assert Summary.from_json(one_class.to_json()) == one_class


def test_json_has_a_place_for_every_predictor(summary):
    content = json.loads(summary.to_json())
    assert (content["model"]["auc"], content["model"]["pairs"]) == (summary.model.auc, 240)
    assert content["floors"]["user mean"]["auc"] == summary.floors["user mean"].auc
    assert content["exits"]["histogram"] == {"2": 80, "4": 79, "6": 81}
    assert content["run"]["rejects"] == {"unknown_item": 7, "prompt_too_long": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "Invalid JSON"),
        (b'{"model": {}}', "model.pairs: Field required"),
        (json.dumps({"throughput": {"pairs": 4}}).encode(), "model: Field required"),
    ],
)
def test_another_file_is_no_summary(text, message):
    with pytest.raises(DataError, match=f"{message}.*evaluate again"):
        Summary.from_json(text)


def test_same_seed_same_summary(world, summary):
    known, scored = world
    floors = predictions(known, scored.pairs)
    again, other = (summarize(scored, floors, RUN, exit_layers=(2, 4), num_layers=6, seed=seed) for seed in (0, 1))
    assert again == summary
    assert other.model.auc_interval != summary.model.auc_interval


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (ROWS, {"exit_layers": (2, 5)}, "exit_layer 4 is none of 2, 5, 6"),
        ([("a", "y", 1, 1.2, 2, False)], {}, "score is 1.2"),
        ([("a", "w", 1, 0.9, 2, False)], {}, "among the known interactions"),
        (ROWS, {"known": known_of(interactions([("a", "w", 1)], split="test"))}, "a leak"),
    ],
)
def test_bad_input_is_named(rows, changes, message):
    with pytest.raises(DataError, match=message):
        summarized(rows, **changes)
