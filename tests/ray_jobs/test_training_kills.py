"""SIGKILL of a training job's driver, and of its workers: it goes on from the checkpoint and ends as if undisturbed.

The full counts run with `--reliability FILE`; otherwise fewer of the same.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from optirag_core.artifacts import Workspace
from ray_jobs.exit_features import exit_features
from ray_jobs.train_exit_heads import train_exit_heads
from ray_jobs.train_retriever import train_retriever
from ray_jobs.tune_llm import tune_llm
from tests.finished_run import changed

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TIMEOUT_S = 240
JOBS = {"retriever": train_retriever, "llm": tune_llm, "exit_heads": train_exit_heads}
NUM_STEPS = 40
KILLED_BEFORE = 30
"""Kills come at a random one of the steps before this one."""
METRICS = {"retriever": "validation_loss", "llm": "validation_log_loss", "exit_heads": "validation_loss"}


@pytest.fixture(scope="module")
def settings(finished_run):
    """At least NUM_STEPS steps, and a checkpoint after each."""
    scratch = finished_run.llm.scratch.model_copy(
        update={"max_steps": NUM_STEPS, "epochs": NUM_STEPS, "batch_tokens": 2048}
    )
    return changed(
        finished_run, retriever={"max_epochs": NUM_STEPS, "patience": NUM_STEPS}, llm={"scratch": scratch},
        exit_heads={"epochs": NUM_STEPS}, training={"checkpoint_s": 1e-3},
    )  # fmt: skip


def untrained(settings, workspace):
    """The same settings in a workspace with the finished run's data set and evidence alone."""
    for kind in ("dataset", "evidence"):
        shutil.copytree(Path(settings.workspace) / kind, workspace / kind)
    return settings.model_copy(update={"workspace": str(workspace)})


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    """The no-fault control: metrics of each job."""
    alone = untrained(settings, tmp_path_factory.mktemp("undisturbed") / "workspace")
    for job in (train_retriever, tune_llm, exit_features, train_exit_heads):
        job(alone)
    return {kind: Workspace(alone.workspace).open(kind).metrics for kind in JOBS}


def step_of(workspace, kind):
    """The newest checkpoint's step; 0 without one."""
    for pointer in workspace.glob(f".training/{kind}-*/LATEST"):
        with suppress(FileNotFoundError, ValueError):
            return int(pointer.read_text().removeprefix("step-"))
    return 0


def wait_for(condition, process):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        if process is not None and process.poll() is not None:
            return
        time.sleep(0.005)


def driver(settings, folder, kind):
    config = folder / "job.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", f"ray_jobs.{JOBS[kind].__name__}", "--config", str(config)]
    with (folder / "job.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


@pytest.mark.thorough
def test_killed_drivers(settings, undisturbed, tmp_path, reliability, request):
    """A seeded random step each; the process group goes at once."""
    workspace, drawn = tmp_path / "workspace", random.Random(0)
    again = untrained(settings, workspace)
    num_kills = 10 if request.config.getoption("--reliability") else 1
    counts = {"kills": 0, "resumed": 0, "as undisturbed": 0}
    for kind in JOBS:
        if kind == "exit_heads":
            exit_features(again)
        for number in range(num_kills):
            target = step_of(workspace, kind) + max(1, drawn.randint(1, KILLED_BEFORE) // num_kills)
            process = driver(again, tmp_path, kind)
            wait_for(lambda kind=kind, target=target: step_of(workspace, kind) >= target, process)
            assert process.poll() is None, f"{kind} was done before kill {number}"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            counts["kills"] += 1
            assert not Workspace(again.workspace).has(kind)
        before = step_of(workspace, kind)
        process = driver(again, tmp_path, kind)
        assert process.wait(TIMEOUT_S) == 0, (tmp_path / "job.log").read_text()
        metrics = Workspace(again.workspace).open(kind).metrics
        counts["resumed"] += f"going on after step {before}" in (tmp_path / "job.log").read_text()
        counts["as undisturbed"] += metrics[METRICS[kind]] == pytest.approx(undisturbed[kind][METRICS[kind]], abs=1e-4)
    reliability["drivers of training jobs killed"] = counts
    assert counts == {"kills": 3 * num_kills, "resumed": 3, "as undisturbed": 3}
    assert not (workspace / ".training").exists()


@pytest.mark.thorough
def test_a_lost_worker_is_replaced(settings, undisturbed, tmp_path, caplog):
    workspace = tmp_path / "workspace"
    one = settings.training.retriever.model_copy(update={"num_workers": 1, "num_cpus_per_worker": 0.5})
    again = changed(untrained(settings, workspace), training={"retriever": one})

    def kill():
        wait_for(lambda: step_of(workspace, "retriever") >= 5, None)
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    artifact = train_retriever(again)
    killer.join()
    assert "retriever: a worker was lost (1 of at most 3 times)" in caplog.text
    trained = Workspace(again.workspace).open("retriever").metrics
    assert artifact.kind == "index"
    assert trained["validation_loss"] == pytest.approx(undisturbed["retriever"]["validation_loss"], abs=1e-4)
    assert trained["num_epochs"] == NUM_STEPS
    assert not (workspace / ".training").exists()
