"""The command line of a comparison, and the gate in front of `LATEST`."""

import json
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from optirag_core.artifacts import Workspace
from optirag_core.config.comparison import CompareSettings
from optirag_core.config.run import RunSettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactCorrupt, RunHeld
from ray_jobs.command import run_job
from ray_jobs.compare import COMPARISON_FILE, USERS_FILE, compare, gate
from ray_jobs.score import score
from tests.evaluation.committed_runs import commit_run
from tests.finished_run import changed

pytestmark = pytest.mark.ray
MONDAY = {("a", "1"): (0.9, 2), ("a", "2"): (0.5, 2), ("b", "1"): (0.25, 4)}
CLOSE = {pair: (score + 0.01, layer) for pair, (score, layer) in MONDAY.items()}
FAR = {pair: (1.0 - score, layer) for pair, (score, layer) in MONDAY.items()}


@pytest.fixture
def settings(tmp_path):
    settings = Settings(workspace=str(tmp_path / "workspace"), compare=CompareSettings(max_mean_score_drift=0.05))
    commit_run(settings.workspace, "monday", MONDAY)
    return settings


def gated(settings, name, scored):
    return commit_run(settings.workspace, name, scored, check=gate(settings, name))


def latest(settings):
    return Workspace(settings.workspace).latest("scores")


def exit_code(settings, tmp_path, monkeypatch, *arguments):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["compare", "--config", str(config), *arguments])
    try:
        run_job(compare, arguments=("run_a", "run_b"))
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_command_exits_with_1_beyond_a_bound_and_with_2_where_a_run_is_missing(
    settings, tmp_path, monkeypatch, capsys
):
    for name, scored in (("close", CLOSE), ("far", FAR)):
        commit_run(settings.workspace, name, scored)

    for run_b, code in (("close", 0), ("far", 1), ("sunday", 2)):
        assert exit_code(settings, tmp_path, monkeypatch, "--run-a", "monday", "--run-b", run_b) == code
    looser = ("--run-a", "monday", "--run-b", "far", "--compare.max_mean_score_drift", "0.9")
    assert exit_code(settings, tmp_path, monkeypatch, *looser) == 0
    printed = capsys.readouterr()
    assert "beyond its bound: mean score drift is 0.4333, above compare.max_mean_score_drift 0.05" in printed.out
    assert "scores/sunday is not committed" in printed.err


def test_what_was_compared_is_an_artifact(settings):
    commit_run(settings.workspace, "close", CLOSE)

    artifact = compare(settings, run_a="monday", run_b="close")

    assert Workspace(settings.workspace).open("comparisons").digest == artifact.digest
    assert json.loads((artifact.path / COMPARISON_FILE).read_text())["pairs"] == 3
    assert pq.read_table(artifact.path / USERS_FILE)["user_id"].to_pylist() == ["a", "b"]
    assert artifact.metrics == {"before": "monday", "after": "close", "within_bounds": True}


def test_a_run_within_the_bounds_becomes_the_newest(settings):
    gated(settings, "tuesday", CLOSE)
    assert latest(settings) == "tuesday"


def test_a_run_beyond_a_bound_is_committed_and_not_the_newest(settings):
    with pytest.raises(RunHeld, match=r"scores/tuesday is committed, but readers go on with monday: mean score drift"):
        gated(settings, "tuesday", FAR)

    assert latest(settings) == "monday"
    assert Workspace(settings.workspace).has("scores", "tuesday")
    with pytest.raises(RunHeld):  # the same command again
        gated(settings, "tuesday", FAR)
    gated(settings, "wednesday", CLOSE)  # compared with what readers get
    assert latest(settings) == "wednesday"


def test_with_a_higher_bound_the_same_command_takes_a_held_run(settings):
    with pytest.raises(RunHeld):
        gated(settings, "tuesday", FAR)

    gated(settings.model_copy(update={"compare": CompareSettings(max_mean_score_drift=0.9)}), "tuesday", FAR)

    assert latest(settings) == "tuesday"


def test_a_crash_between_commit_and_gate_loses_nothing(settings):
    def crash(before):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commit_run(settings.workspace, "tuesday", CLOSE, check=crash)
    assert latest(settings) == "monday"

    gated(settings, "tuesday", CLOSE)  # the same command again

    assert latest(settings) == "tuesday"


def test_without_a_bound_nothing_is_compared(settings):
    free = settings.model_copy(update={"compare": CompareSettings(top_k=3)})
    assert gate(free, "tuesday") is None
    gated(free, "tuesday", FAR)
    assert latest(settings) == "tuesday"
    assert not Workspace(settings.workspace).has("comparisons")


def test_a_run_that_readers_do_not_get_is_compared_with_nothing(settings):
    aside = settings.model_copy(update={"run": RunSettings(pointer="LATEST-test")})
    assert gate(aside, "tuesday") is None
    commit_run(settings.workspace, "tuesday", FAR, pointer="LATEST-test")
    assert latest(settings) == "monday"
    assert Workspace(settings.workspace).open("scores", "LATEST-test").version == "tuesday"


def test_the_first_run_and_one_whose_predecessor_is_gone_are_compared_with_nothing(settings):
    Workspace(settings.workspace).remove("scores", "monday")
    gated(settings, "tuesday", FAR)
    assert latest(settings) == "tuesday"


def test_a_damaged_predecessor_keeps_the_run_back(settings):
    manifest = Workspace(settings.workspace).open("scores", "monday").path / "manifest.json"
    manifest.write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match=r"scores/monday/manifest\.json is damaged"):
        gated(settings, "tuesday", CLOSE)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_job_holds_a_run_that_another_policy_has_changed(own_workspace):
    score(changed(own_workspace, run={"name": "monday"}))
    other = {"criterion": "confidence", "threshold": 0.5, "uncertified": True}
    strict = changed(own_workspace, run={"name": "tuesday"}, exit_policy=other, compare={"max_exit_changed": 0.0})

    with pytest.raises(RunHeld, match=r"scores/tuesday is committed"):
        score(strict)

    assert Workspace(own_workspace.workspace).latest("scores") == "monday"
