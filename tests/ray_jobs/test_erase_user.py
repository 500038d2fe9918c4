"""The jobs on a real workspace: a user goes, scoring goes on, training begins anew without the user."""

import json

import pyarrow.compute as pc
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.data.dataset import Dataset
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.recipes import evidence_recipe
from optirag_core.runs.reader import read_scores
from ray_jobs.erase_user import erase_user
from ray_jobs.migrate import migrate
from ray_jobs.prepare_data import prepare_data
from ray_jobs.rollback import rollback
from ray_jobs.score import score
from tests.finished_run import changed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.thorough]


def test_a_user_goes_scores_go_on_and_training_begins_anew(own_workspace):
    settings = changed(own_workspace, run={"name": "before", "lease_s": 0.2})
    workspace = Workspace(settings.workspace)
    score(settings)
    before = read_scores(f"{settings.workspace}/scores")
    user = before["user_id"][0].as_py()

    erasure = erase_user(settings, user_id=user)

    assert erasure.jobs == [
        "fit_evidence", "train_retriever", "tune_llm", "exit_features", "train_exit_heads", "calibrate_exits",
    ]  # fmt: skip
    artifacts = open_artifacts(settings, *TRAINED)  # they fit each other
    assert user not in Dataset.load(artifacts["dataset"].path).users["user_id"].to_pylist()
    left = read_scores(f"{settings.workspace}/scores/before")
    assert left.equals(before.filter(pc.not_equal(before["user_id"], user)))
    after = score(changed(settings, run={"name": "after"}))
    assert after["metrics"]["scored"] == len(left)
    assert user not in read_scores(f"{settings.workspace}/scores/after")["user_id"].to_pylist()
    assert evidence_recipe(settings, {"dataset": artifacts["dataset"].digest}).made(workspace) is None
    assert migrate(settings).changed == ()
    assert rollback(settings, run="before")["scores"] == workspace.latest("scores") == "before"


def test_raw_files_do_not_bring_an_erased_user_back(own_workspace):
    settings = changed(own_workspace, run={"lease_s": 0.2})
    users = Dataset.load(Workspace(settings.workspace).open("dataset").path).users["user_id"].to_pylist()
    erase_user(settings, user_id=users[5])

    made = prepare_data(changed(settings, dataset={"min_history": 4}))

    dataset = Dataset.load(made.path)
    assert users[5] not in {*dataset.users["user_id"].to_pylist(), *dataset.interactions["user_id"].to_pylist()}
    assert json.loads((made.path / "info.json").read_text())["counts"]["erased_users"] >= 1
