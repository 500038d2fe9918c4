"""Two runs of four common pairs, compared by hand; bounds; and runs of a workspace."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.comparison import CompareSettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactMissing
from optirag_core.evaluation.comparison import ScoredPairs, compare_pairs, joined_pairs
from optirag_core.evaluation.comparison_words import beyond, comparison_table
from optirag_core.evaluation.run_comparison import compare_runs
from tests.evaluation.committed_runs import commit_run, save_dataset
from tests.evaluation.conftest import scores_of

BEFORE = [("a", "1", 0.9, 2, False), ("a", "2", 0.5, 2, False), ("b", "1", 0.25, 4, False), ("b", "3", 0.5, 4, False)]
AFTER = [("a", "1", 0.4, 2, False), ("a", "2", 0.5, 4, False), ("b", "1", 0.25, 4, False), ("b", "3", 0.75, 4, False)]
LABELS = pa.table(
    {"user_id": ["a", "a", "b", "b"], "item_id": ["1", "2", "1", "3"], "label": pa.array([1, 0, 0, 1], pa.int8())}
)


def compared(before=BEFORE, after=AFTER, labels=LABELS, top_k=1):
    runs = [
        ScoredPairs(name, scores_of(rows), {"unknown_item": rejected})
        for name, rows, rejected in (("monday", before, 1), ("tuesday", after, 3))
    ]
    pairs = joined_pairs(*(run.scores for run in runs))
    return compare_pairs(*runs, pairs, top_k=top_k, labels=labels, seed=0)


@pytest.fixture(scope="module")
def found():
    return compared([*BEFORE, ("c", "1", 0.5, 4, False)], AFTER)


def test_what_changed_by_hand(found):
    assert (found.pairs, found.users, found.only_before, found.only_after) == (4, 2, 1, 0)
    assert (found.rejects_before, found.rejects_after) == ({"unknown_item": 1}, {"unknown_item": 3})
    assert found.common_share == 0.8
    assert found.score.mean == pytest.approx((0.5 + 0.25) / 4)
    assert found.score.max == pytest.approx(0.5)
    assert found.score.quantiles == {share: pytest.approx(value) for share, value in zip(
        (0.5, 0.9, 0.99), np.quantile([0.5, 0.0, 0.0, 0.25], (0.5, 0.9, 0.99)), strict=True)}  # fmt: skip
    assert found.score.correlation == pytest.approx(
        np.corrcoef([0.9, 0.5, 0.25, 0.5], [0.4, 0.5, 0.25, 0.75])[0, 1], abs=1e-6
    )
    assert (found.exits.before, found.exits.after, found.exits.changed) == ({2: 2, 4: 2}, {2: 1, 4: 3}, 0.25)
    assert (found.exits.mean_before, found.exits.mean_after) == (3.0, 3.5)
    assert (found.top.users, found.top.changed, found.top.mean_overlap) == (2, 0.5, 0.5)


def test_quality_against_labels_by_hand(found):
    """Before, the liked 0.9 and 0.5 beat 0.5 and 0.25 but for one tie; after, 0.4 loses to 0.5."""
    labelled = found.labelled
    assert (labelled.before.auc, labelled.after.auc) == (0.875, 0.75)
    assert labelled.auc.value == pytest.approx(-0.125)
    assert labelled.auc.low <= -0.125 <= labelled.auc.high
    losses = [-np.log([0.9, 0.5, 0.75, 0.5]).mean(), -np.log([0.4, 0.5, 0.75, 0.75]).mean()]
    assert (labelled.before.log_loss, labelled.after.log_loss) == pytest.approx(losses, abs=1e-6)
    assert labelled.log_loss.value == pytest.approx(losses[1] - losses[0], abs=1e-6)


def test_equal_runs_differ_in_nothing():
    found = compared(BEFORE, BEFORE)
    assert (found.score.mean, found.score.max, found.exits.changed, found.top.changed) == (0.0, 0.0, 0.0, 0.0)
    assert found.score.correlation == pytest.approx(1.0)
    assert tuple(found.labelled.auc) == tuple(found.labelled.log_loss) == (0.0, 0.0, 0.0)
    assert beyond(found, CompareSettings(max_auc_drop=0, max_mean_score_drift=0, max_top_changed=0)) == []


@pytest.mark.parametrize(
    ("name", "figure", "words"),
    [
        ("max_auc_drop", 0.125, "AUC is lower by 0.125, above compare.max_auc_drop"),
        ("max_log_loss_rise", 0.1014, "log loss is higher by"),
        ("max_mean_score_drift", 0.1875, "mean score drift is 0.1875, above compare.max_mean_score_drift"),
        ("max_exit_changed", 0.25, "share of pairs at another exit is 0.25"),
        ("max_top_changed", 0.5, "share of users with another list is 0.5"),
    ],
)
def test_a_bound_holds_up_to_its_figure_and_not_beyond(found, name, figure, words):
    assert beyond(found, CompareSettings(**{name: figure + 1e-4})) == []
    [line] = beyond(found, CompareSettings(**{name: figure - 1e-3}))
    assert words in line


def test_too_few_common_pairs_are_beyond_their_bound(found):
    assert beyond(found, CompareSettings(min_common_share=0.8)) == []
    assert beyond(found, CompareSettings(min_common_share=0.81)) == [
        "both scored 0.8 of the pairs, below compare.min_common_share 0.81"
    ]


def test_what_is_not_known_is_beyond_the_bound_on_it():
    apart = compared(BEFORE[:2], AFTER[2:])
    assert (apart.pairs, apart.score, apart.exits, apart.top) == (0, None, None, None)
    assert beyond(apart, CompareSettings(max_mean_score_drift=1.0)) == [
        "mean score drift is not known (both scored no pair), but compare.max_mean_score_drift is 1"
    ]
    unlabelled = compared(labels="because")
    assert beyond(unlabelled, CompareSettings(max_auc_drop=1.0, max_mean_score_drift=1.0)) == [
        "AUC is lower by not known (because), but compare.max_auc_drop is 1"
    ]
    one_class = compared(labels=LABELS.slice(0, 1))
    assert "all labels are the same" in beyond(one_class, CompareSettings(max_auc_drop=1.0))[0]


def test_lists_that_cannot_change_are_within_their_bound():
    assert compared(top_k=10).top.changed is None
    assert beyond(compared(top_k=10), CompareSettings(max_top_changed=0.0)) == []
    assert "no user has more than 10 pairs: no list can change" in comparison_table(compared(top_k=10))


def test_the_table_says_all_of_it(found):
    table = comparison_table(found)
    for line in (
        r"pairs scored +5 +4", r"scored there alone +1 +0", r"rejected, unknown_item +1 +3 +\+2",
        r"mean \|score difference\| +0\.1875", r"mean exit layer +3\.00 +3\.50 +\+0\.50",
        r"pairs at layer 2 +50\.00% +25\.00% +-25\.00%", r"users with another top 1 +50\.00%",
        r"4 labelled pairs: AUC +0\.8750 +0\.7500 +-0\.1250 \(95 %",
    ):  # fmt: skip
        assert re.search(line, table), f"{line}\n{table}"
    assert "no labels: because" in comparison_table(compared(labels="because"))
    assert "both scored no pair" in comparison_table(compared(BEFORE[:2], AFTER[2:]))


SCORES = {("a", "1"): (0.9, 2), ("a", "2"): (0.5, 2), ("b", "1"): (0.25, 4), ("b", "3"): (-1, 0)}
LOWER = {("a", "1"): (0.4, 2), ("a", "2"): (0.5, 4), ("b", "1"): (0.25, 4), ("b", "3"): (0.75, 4)}
TEST_ROWS = [("a", "1", 1), ("a", "2", 0), ("b", "1", 0), ("b", "3", 1)]


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=str(tmp_path))


def test_two_runs_of_a_workspace(settings):
    dataset = save_dataset(settings.workspace, TEST_ROWS)
    digests = [
        commit_run(settings.workspace, name, scored, dataset=dataset)["digest"]
        for name, scored in (("monday", SCORES), ("tuesday", LOWER))
    ]

    found, users, runs = compare_runs(settings, "monday", "tuesday")

    assert (found.before, found.after, found.pairs, found.only_after) == ("monday", "tuesday", 3, 1)
    assert (found.rejects_before, found.rejects_after) == ({"unknown_item": 1}, {})
    assert (found.labelled.before.auc, found.labelled.after.auc) == (1.0, 0.5)
    assert users["user_id"].to_pylist() == ["a", "b"]
    assert runs == {"before": digests[0], "scores": digests[1]}
    assert json.loads(found.to_json())["exits"]["after"] == {"2": 1, "4": 2}


def test_labels_count_only_where_both_runs_asked_for_the_test_split_of_this_data_set(settings):
    dataset = save_dataset(settings.workspace, TEST_ROWS)
    commit_run(settings.workspace, "asked", SCORES, dataset=dataset, split="other")
    commit_run(settings.workspace, "monday", SCORES, dataset=dataset)
    commit_run(settings.workspace, "elsewhere", LOWER)

    assert compare_runs(settings, "asked", "monday")[0].unlabelled_because == (
        "run asked was not asked for the test split"
    )
    assert compare_runs(settings, "monday", "elsewhere")[0].unlabelled_because == (
        "run elsewhere was scored on another data set than the newest"
    )
    Workspace(settings.workspace).remove("dataset")
    assert compare_runs(settings, "monday", "elsewhere")[0].unlabelled_because == "the workspace has no data set"


def test_a_share_of_the_users_is_the_same_in_both_runs(settings):
    scored = {(f"u{number}", "1"): (0.5, 2) for number in range(200)}
    for name in ("monday", "tuesday"):
        commit_run(settings.workspace, name, scored)
    half = settings.model_copy(update={"compare": CompareSettings(user_share=0.5)})

    found, _, _ = compare_runs(half, "monday", "tuesday")

    assert 70 <= found.pairs <= 130
    assert (found.only_before, found.only_after) == (0, 0)


def test_a_run_that_is_not_committed_is_named(settings):
    commit_run(settings.workspace, "monday", SCORES)
    with pytest.raises(ArtifactMissing, match=r"scores/sunday is not committed"):
        compare_runs(settings, "sunday", "monday")
