"""Compare, roll back and migrate in a bucket, by the users' commands: with a server that fails, and killed."""

import itertools
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from optirag_core.artifacts import Workspace, scratch_folder
from optirag_core.config.comparison import CompareSettings
from optirag_core.config.run import StorageSettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactMismatch, RunHeld
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.lineage import manifests
from optirag_core.retrieval.index import ROWS_FILE
from optirag_core.runs.reader import read_scores
from optirag_core.storage.base import open_storage
from ray_jobs.command import run_job
from ray_jobs.compare import COMPARISON_FILE, USERS_FILE, compare, gate
from ray_jobs.migrate import migrate
from ray_jobs.rollback import rollback
from tests.evaluation.committed_runs import commit_run, save_dataset
from tests.finished_run import changed, driver
from tests.storage.faulty_proxy import FaultyProxy

pytestmark = pytest.mark.s3
TIMEOUT_S = 240
JOBS = {compare: ("run_a", "run_b"), rollback: ("run",), migrate: ()}
MONDAY = {("a", "1"): (0.9, 2), ("a", "2"): (0.5, 2), ("b", "1"): (0.25, 4)}
CLOSE = {pair: (score + 0.01, layer) for pair, (score, layer) in MONDAY.items()}
FAR = {pair: (1.0 - score, layer) for pair, (score, layer) in MONDAY.items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """This process has no copy of an artifact yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


class KillingProxy(FaultyProxy):
    """Kills a process at its `at`-th write; mode `lost_reply`: the write arrives, `hang`: it does not."""

    def __init__(self, endpoint, mode, at):
        super().__init__(endpoint, mode=mode, rate=1.0)
        self.left, self.process = at, None

    def fires(self, method):
        with self._lock:
            self.left -= method in ("PUT", "POST", "DELETE")
            if self.left == 0:
                self.process.kill()
            return self.left <= 0


def test_a_run_that_the_gate_holds_in_a_bucket_is_taken_by_a_rollback(s3_bucket, tmp_path, monkeypatch):
    settings = Settings(workspace=s3_bucket, compare=CompareSettings(max_mean_score_drift=0.05))
    commit_run(s3_bucket, "monday", MONDAY)
    with pytest.raises(RunHeld, match="readers go on with monday"):
        commit_run(s3_bucket, "tuesday", FAR, check=gate(settings, "tuesday"))
    assert Workspace(s3_bucket).latest("scores") == "monday"

    assert exit_code(rollback, settings, tmp_path, monkeypatch, "--run", "tuesday") == 0

    assert Workspace(s3_bucket).latest("scores") == "tuesday"


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("rate", [0.0, 0.2], ids=["sound", "failing"])
def test_a_bucket_is_compared_held_and_rolled_back_like_a_folder(s3_bucket, s3_endpoint, tmp_path, monkeypatch, rate):
    local = a_week(str(tmp_path / "local"), tmp_path, monkeypatch)
    with FaultyProxy(s3_endpoint, mode="unavailable", rate=rate, seed=1) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        bucket = a_week(f"{s3_bucket}/deep/workspace", tmp_path, monkeypatch)

    assert bucket == local
    assert local["newest"] == [("d2", "monday"), ("d2", "wednesday"), ("d1", "monday"), ("d2", "wednesday")]
    assert local["codes"] == {"monday": 0, "tuesday": 1, "sunday": 2, "migrate": 0}
    assert bool(server.fired) == bool(rate)


def a_week(uri, folder, monkeypatch):
    """What a workspace's runs, comparisons and pointers are after a sequence of gates and commands."""
    settings, seen = Settings(workspace=uri, compare=CompareSettings(max_mean_score_drift=0.05)), []
    workspace = Workspace(uri)

    def look():
        seen.append((workspace.latest("dataset"), workspace.latest("scores")))

    rows = [(user, item, 1) for user, item in MONDAY]
    commit_run(uri, "monday", MONDAY, dataset=save_dataset(uri, rows))
    second = save_dataset(uri, [*rows[:-1], ("b", "1", 0)], "d2")
    with pytest.raises(RunHeld, match="readers go on with monday"):
        commit_run(uri, "tuesday", FAR, dataset=second, check=gate(settings, "tuesday"))
    look()
    commit_run(uri, "wednesday", CLOSE, dataset=second, check=gate(settings, "wednesday"))
    look()
    codes = {
        name: exit_code(compare, settings, folder, monkeypatch, "--run-a", "wednesday", "--run-b", name)
        for name in ("monday", "tuesday", "sunday")
    }
    for name in ("monday", "wednesday"):
        assert exit_code(rollback, settings, folder, monkeypatch, "--run", name) == 0
        look()
    codes["migrate"] = exit_code(migrate, settings, folder, monkeypatch)
    artifact = workspace.open("comparisons")
    found = {name: (artifact.path / name).read_bytes() for name in (COMPARISON_FILE, USERS_FILE)}
    listed = open_storage(uri, StorageSettings()).list("comparisons")
    listed = sorted(path.rpartition("/")[2] for path in listed)  # a version is of digests, which attempts' names change
    scores = read_scores(f"{uri}/scores")
    return {"newest": seen, "codes": codes, "found": found, "listed": listed, "scores": scores}


def exit_code(job, settings, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [job.__name__, "--config", str(written(settings, folder)), *arguments])
    try:
        run_job(job, arguments=JOBS[job])
    except SystemExit as stop:
        return stop.code
    return 0


def written(settings, folder):
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    return config


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_held_run_is_taken_and_a_rollback_killed_between_its_writes_finishes(
    own_workspace, s3_bucket, s3_endpoint, tmp_path
):
    settings = own_workspace.model_copy(update={"workspace": s3_bucket})
    workspace = Workspace(s3_bucket)
    published(own_workspace, s3_bucket, "earlier")
    assert driver(settings, tmp_path, "monday").wait(TIMEOUT_S) == 0
    published(own_workspace, s3_bucket, "later", again=True)
    other = {"criterion": "confidence", "threshold": 0.5, "uncertified": True}
    strict = changed(settings, exit_policy=other, compare={"max_exit_changed": 0.0})
    assert driver(strict, tmp_path, "tuesday").wait(TIMEOUT_S) == 2
    assert (
        "RunHeld: scores/tuesday is committed, but readers go on with monday" in (tmp_path / "tuesday.log").read_text()
    )
    assert workspace.latest("scores") == "monday"
    assert command("rollback", settings, tmp_path, "--run", "tuesday").wait(TIMEOUT_S) == 0
    assert workspace.latest("scores") == "tuesday"

    num_writes = len(TRAINED) + 1
    for mode, at in (("hang", 1), ("lost_reply", num_writes // 2), ("hang", num_writes)):
        assert killed("rollback", settings, tmp_path, s3_endpoint, mode, at, "--run", "monday") == -signal.SIGKILL
        assert workspace.latest("scores") == "tuesday"
        if 1 < at < num_writes:
            with pytest.raises(ArtifactMismatch):
                open_artifacts(settings, *TRAINED)
    assert killed("rollback", settings, tmp_path, s3_endpoint, "hang", num_writes + 1, "--run", "monday") == 0

    newest = {kind: workspace.latest(kind) for kind in (*TRAINED, "scores")}
    assert newest == dict.fromkeys(TRAINED, "earlier") | {"scores": "monday"}
    assert open_artifacts(settings, *TRAINED).digests == workspace.open("scores").manifest["parents"]
    assert command("compare", strict, tmp_path, "--run-a", "monday", "--run-b", "tuesday").wait(TIMEOUT_S) == 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_migration_that_is_killed_again_and_again_finishes_as_in_a_folder(
    own_workspace, s3_bucket, s3_endpoint, tmp_path
):
    local, settings = (
        changed(own_workspace, run={"lease_s": 2.0}).model_copy(update={"workspace": uri})
        for uri in (str(tmp_path / "local"), s3_bucket)
    )
    for each in (local, settings):
        published(own_workspace, each.workspace, "v1", without=ROWS_FILE)  # as versions before 2026-11-28 wrote it
    assert migrate(local).changed == ("index/v1",)

    kills = 0
    for at in itertools.count(1, 2):
        mode = ("hang", "lost_reply")[kills % 2]
        if not (code := killed("migrate", settings, tmp_path, s3_endpoint, mode, at)):
            break
        assert code == -signal.SIGKILL, (tmp_path / "migrate.log").read_text()[-3000:]
        kills += 1

    assert kills >= 4
    assert digests(settings) == digests(local)
    assert migrate(settings).changed == ()
    assert not [path for path in stored(settings).list(".replacing") if "/new/" in path]
    assert driver(settings, tmp_path, "night").wait(TIMEOUT_S) == 0


def published(settings, uri, version, *, without=None, **mark):
    """Put the artifacts into another workspace under this version, with lineage, but for the files of this name."""
    source, target, made = Workspace(settings.workspace), Workspace(uri), {}
    for kind in TRAINED:
        artifact = source.open(kind)
        parents = {parent: made.get(parent, digest) for parent, digest in artifact.manifest["parents"].items()}
        with scratch_folder() as files:
            for name in set(artifact.manifest["files"]) - {without}:
                (files / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(artifact.path / name, files / name)
            config = artifact.manifest["config"] | mark
            saved = target.save(kind, version, files, config=config, parents=parents, metrics=artifact.metrics)
        made[kind] = saved.digest


def killed(job, settings, folder, endpoint, mode, at, *arguments):
    """Exit code of a job that dies at its `at`-th write, at a server that answers some requests with 503."""
    with (
        KillingProxy(endpoint, mode, at) as killing,
        FaultyProxy(killing.url, mode="unavailable", rate=0.1, seed=at) as failing,
    ):
        killing.process = command(job, settings, folder, *arguments, endpoint=failing.url)
        return killing.process.wait(TIMEOUT_S)


def command(job, settings, folder, *arguments, endpoint=None):
    line = [sys.executable, "-m", f"ray_jobs.{job}", "--config", str(written(settings, folder)), *arguments]
    environment = os.environ | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})
    with (folder / f"{job}.log").open("a") as log:
        return subprocess.Popen(line, env=environment, stdout=log, stderr=log)


def stored(settings):
    return open_storage(settings.workspace, settings.storage)


def digests(settings):
    return {folder: (each["digest"], each["parents"]) for folder, each in manifests(stored(settings)).items()}
