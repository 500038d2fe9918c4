"""One run trains every missing model and seed; each is published by itself and the same wherever it is trained."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from optirag_core.artifacts import Workspace
from optirag_core.baselines.artifact import MODEL_FILE, PARENTS, SCORES_FILE, read_baselines
from optirag_core.config.run import WorkersSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.inference.opening import open_artifacts
from ray_jobs.fit_evidence import fit_evidence
from ray_jobs.prepare_data import prepare_data
from ray_jobs.train_baselines import dealt, train_baselines
from tests.finished_run import changed, tiny_settings

pytestmark = pytest.mark.ray
BASELINES = {"models": ["DeepFM", "DIN"], "num_seeds": 2, "num_trials": 2, "max_epochs": 2, "hidden": [8]}
TIMEOUT_S = 240


def prepared(workspace):
    """A data set with its evidence."""
    settings = tiny_settings(
        workspace, baselines=BASELINES, training={"baselines": {"num_workers": 0, "torch_threads": 1}}
    )
    prepare_data(settings)
    fit_evidence(settings)
    return settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("baselines") / "workspace")


@pytest.fixture(scope="module")
def made(settings):
    return train_baselines(settings)


def test_every_model_and_seed_is_an_artifact(made, settings):
    assert [artifact.manifest["config"]["model"] for artifact in made] == ["DeepFM", "DIN"] * 2
    assert [artifact.manifest["config"]["seed"] for artifact in made] == [0, 0, 1, 1]
    assert len({artifact.digest for artifact in made}) == 4
    for artifact in made:
        assert set(artifact.manifest["files"]) == {MODEL_FILE, SCORES_FILE}
        assert set(artifact.manifest["parents"]) == set(PARENTS)
        assert len(artifact.metrics["trials"]) == 2
    assert not list((made[0].path.parents[1]).glob(".training/*"))


def test_workers_are_dealt_cells_there_and_back():
    assert [dealt(list("abcdefgh"), rank, 3) for rank in range(3)] == [list("afg"), list("beh"), list("cd")]
    assert [dealt(list("ab"), rank, 2) for rank in range(2)] == [["a"], ["b"]]
    assert dealt(list("abc"), 0, 1) == list("abc")


def test_the_report_reads_the_scores_of_every_model(made, settings):
    artifacts = open_artifacts(settings, *PARENTS)
    tables = read_baselines(settings, artifacts)
    asked = labelled_pairs(requests_for(Dataset.load(artifacts["dataset"].path).interactions, "test"))
    assert list(tables) == ["DeepFM", "DIN"]
    for place, table in enumerate(tables.values()):
        seeds = table["seed"].to_numpy()
        assert seeds.tolist() == [0] * len(asked) + [1] * len(asked)
        for seed in (0, 1):
            rows = table.filter(seeds == seed)
            assert rows.select(["user_id", "item_id", "label"]).equals(asked.select(["user_id", "item_id", "label"]))
            measured = binary_metrics(rows["label"].to_numpy(), rows["score"].to_numpy())
            metrics = made[2 * seed + place].metrics
            assert (measured.auc, measured.log_loss) == (metrics["test_auc"], metrics["test_log_loss"])
    first, second = (tables["DIN"].filter(seeds == seed)["score"].to_numpy() for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_only_what_is_missing_is_trained_and_comes_out_the_same(made, settings, caplog):
    manifests = [artifact.path / "manifest.json" for artifact in made]
    written = [manifest.stat().st_mtime_ns for manifest in manifests]
    Workspace(settings.workspace).remove("baselines", made[2].version)
    with caplog.at_level("INFO"):
        again = train_baselines(settings)
    assert caplog.text.count("is there already") == 3
    assert [artifact.digest for artifact in again] == [artifact.digest for artifact in made]
    kept = [manifest.stat().st_mtime_ns == before for manifest, before in zip(manifests, written, strict=True)]
    assert kept == [True, True, False, True]


@pytest.mark.thorough
def test_two_workers_train_cells_of_their_own(made, tmp_path):
    two = WorkersSettings(num_workers=2, num_cpus_per_worker=0.5, torch_threads=1)
    parallel = train_baselines(changed(prepared(tmp_path / "workspace"), training={"baselines": two}))
    assert [artifact.digest for artifact in parallel] == [artifact.digest for artifact in made]


@pytest.mark.thorough
def test_a_killed_run_has_published_what_it_had_trained(made, tmp_path):
    """SIGKILL of driver and workers after the first models; the same command makes the others and no more."""
    settings = prepared(tmp_path / "workspace")
    settings = changed(settings, training={"baselines": WorkersSettings(num_workers=1, torch_threads=1)})
    config, folder = tmp_path / "settings.yaml", tmp_path / "workspace" / "baselines"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "ray_jobs.train_baselines", "--config", str(config)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + TIMEOUT_S
        while not list(folder.glob("[!.]*/manifest.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*/manifest.json")}
        assert 0 < len(kept) < 4
        assert not subprocess.run(command, stdout=log, stderr=log, timeout=TIMEOUT_S).returncode
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    versions = {artifact.version for artifact in made}
    assert {path.parent.name for path in folder.glob("[!.]*/manifest.json")} == versions
    assert {Workspace(settings.workspace).open("baselines", version).digest for version in versions} == {
        artifact.digest for artifact in made
    }
