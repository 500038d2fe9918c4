"""One local Ray for the session, and one finished pipeline run that the tests of jobs and of the endpoint read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from ray_jobs.pipeline import pipeline
from ray_jobs.session import LOCAL_ENVIRONMENT
from serve_apps.local import use_direct_ingress

NUM_LAYERS = 5


@pytest.fixture(scope="session")
def local_ray():
    """Every job finds this Ray and leaves it alone."""
    os.environ.update(LOCAL_ENVIRONMENT | {"RAY_metrics_report_interval_ms": "1000"})
    use_direct_ingress()
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


def tiny_settings(workspace: Path, **changes: object) -> Settings:
    """A whole run in seconds: a few users, a few steps, training in this process."""
    raw = {
        "workspace": str(workspace),
        "dataset": {
            "source": "synthetic",
            "like_threshold": 5,
            "synthetic": {"num_users": 120, "num_books": 60, "mean_ratings_per_user": 10},
        },
        "retriever": {"max_epochs": 3},
        "prompt": {"template": "books", "num_similar_users": 2, "max_similar_history": 3},
        "llm": {
            "scratch": {
                "shape": {"hidden_size": 32, "intermediate_size": 64, "num_layers": NUM_LAYERS, "num_heads": 2,
                          "vocab_size": 400},
                "max_steps": 5,
                "cold_start_epochs": 0,
            },
        },
        "exit_heads": {"layers": [3, 4], "epochs": 2},
        "run": {"pairs_per_shard": 40},
        "training": {name: {"num_workers": 0} for name in ("retriever", "llm", "exit_heads")},
    }  # fmt: skip
    return settings_from(raw | changes)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, local_ray) -> Settings:
    """Settings of a pipeline run on generated data that has ended well."""
    settings = tiny_settings(tmp_path_factory.mktemp("workspace"))
    pipeline(settings)
    return settings


@pytest.fixture(scope="module")
def own_workspace(finished_run, tmp_path_factory) -> Settings:
    """The finished run's artifacts without its scores, in a workspace that nobody else looks at."""
    folder = tmp_path_factory.mktemp("own") / "workspace"
    shutil.copytree(finished_run.workspace, folder, ignore=shutil.ignore_patterns("scores", "reports"))
    return finished_run.model_copy(update={"workspace": str(folder)})


def changed(settings: Settings, **sections: dict[str, object]) -> Settings:
    """Settings with other values in some sections, e.g. `run={"name": "night"}`."""
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()}
    )


def driver(settings: Settings, folder: Path, run: str, num_cpus: int = 2) -> subprocess.Popen:
    """A job of its own with a Ray of its own."""
    config = folder / f"{run}.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "ray_jobs.score", "--config", str(config)]
    command += ["--run.name", run, "--ray.num_cpus", str(num_cpus)]
    with (folder / f"{run}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
