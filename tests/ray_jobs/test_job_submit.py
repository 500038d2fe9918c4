"""`ray job submit` to a real head node that asks for a token."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from optirag_core.artifacts import Workspace
from ray_jobs.pipeline import STAGES
from ray_jobs.prepare_data import prepare_data
from tests.finished_run import tiny_settings
from tests.ray_jobs.nodes import TIMEOUT_S, Head, head_node, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
REPOSITORY = Path(__file__).parents[2]
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with head_node() as head:
        yield head


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """With a data set, and each training in a worker of the cluster."""
    settings = tiny_settings(
        tmp_path_factory.mktemp("submitted"), ray={"address": "auto"},
        training={name: {"num_workers": 1} for name in ("retriever", "llm", "exit_heads")},
    )  # fmt: skip
    prepare_data(settings)
    return settings


@pytest.fixture(scope="module")
def submit(head, settings, tmp_path_factory) -> Submit:
    """Run `ray job submit` as the documentation has it, on the repository."""
    address, environment = head.dashboard, head.environment
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    ray = str(Path(sys.executable).parent / "ray")

    def submit(job: str, *arguments: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None):
        command = [ray, "job", "submit", "--address", address, "--working-dir", ".", *options, "--"]
        command += ["python", "-m", f"ray_jobs.{job}", "--config", str(config), *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env=env or environment, timeout=TIMEOUT_S, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    submit.ray, submit.address, submit.environment = ray, address, environment
    return submit


@pytest.mark.thorough
def test_a_submitted_training_runs_on_the_cluster(submit, settings):
    done = submit("train_retriever")

    assert done.returncode == 0, done.stdout
    assert "retriever: Recall@20" in done.stdout
    assert Workspace(settings.workspace).has("index")


@pytest.mark.thorough
def test_every_job_from_raw_data_to_the_report(submit, tmp_path):
    for stage in STAGES:
        done = submit(stage.__name__, "--workspace", str(tmp_path / "workspace"))
        assert done.returncode == 0, done.stdout

    assert {"scores", "reports"} <= {kind.name for kind in (tmp_path / "workspace").iterdir()}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--llm.scratch.epoch", "3"), "did you mean llm.scratch.epochs?"),
        (("--ray.address", "local"), "ConfigError: ray.address is local, but `ray job submit` runs this on a cluster"),
        (("--workspace", "runs/mine"), "ConfigError: workspace mine lies in the job's working directory"),
    ],
)
def test_a_job_that_fails_says_why_and_exits_non_zero(submit, arguments, message):
    failed = submit("train_retriever", *arguments)

    assert failed.returncode == 1
    assert message in failed.stdout
    assert not (REPOSITORY / "runs" / "mine").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "nauthorized"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}, "nvalid"),
    ],
)
def test_nobody_submits_without_the_token(submit, given, refusal):
    stranger = {name: value for name, value in submit.environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    refused = submit("train_retriever", env=stranger | given)

    assert refused.returncode != 0
    assert refusal in refused.stdout + refused.stderr
    assert "submitted successfully" not in refused.stdout


@pytest.mark.thorough
def test_a_stopped_training_goes_on_where_it_was(submit, settings):
    longer = ("--retriever.max_epochs", "400", "--retriever.patience", "400")
    always = ("--training.checkpoint_s", "0.001")  # after each step
    started = submit("train_retriever", *longer, *always, options=("--no-wait", "--submission-id", "stopped"))
    assert started.returncode == 0, started.stdout
    pointers = Path(settings.workspace)
    wait_until(lambda: any(pointers.glob(".training/retriever-*/LATEST")))

    stop = [submit.ray, "job", "stop", "--address", submit.address, "stopped"]
    subprocess.run(stop, env=submit.environment, check=True, capture_output=True, timeout=TIMEOUT_S)
    [pointer] = pointers.glob(".training/retriever-*/LATEST")
    assert int(pointer.read_text().removeprefix("step-")) < 400 * 10

    done = submit("train_retriever", *longer)
    assert done.returncode == 0, done.stdout
    assert not list(pointers.glob(".training/retriever-*"))
