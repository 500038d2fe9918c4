"""`ray job submit` to a real head node, in processes of its own: this one never joins that Ray.

The head listens on loopback alone and asks for a token. It is ended by its process id: `ray stop` ends every Ray here.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from optirag_core.artifacts import Workspace
from ray_jobs.prepare_data import prepare_data
from tests.finished_run import tiny_settings

pytestmark = [pytest.mark.ray, pytest.mark.slow]
REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 600
CHAIN = ("fit_evidence", "train_retriever", "tune_llm", "exit_features", "train_exit_heads", "calibrate_exits", "score")
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a head node's dashboard, and the environment that may submit to it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",  # jobs run the head's `python`
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or 127.0.0.1 becomes an address of every interface
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="head-", dir="/tmp") as folder:  # paths of sockets have to be short
        gcs, dashboard, client, agent = free_ports(4)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address", "127.0.0.1",
            "--port", gcs, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard,
            "--ray-client-server-port", client, "--dashboard-agent-listen-port", agent, "--num-cpus", "2",
            "--object-store-memory", str(200 * 2**20), "--temp-dir", folder, "--disable-usage-stats",
        ]  # fmt: skip
        log = Path(folder) / "head.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_until(lambda: "Ray runtime started" in log.read_text(), process)
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def free_ports(number: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [str(each.getsockname()[1]) for each in sockets]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.2)


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
    address, environment = head
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


def test_a_submitted_training_runs_on_the_cluster(submit, settings):
    done = submit("train_retriever")

    assert done.returncode == 0, done.stdout
    assert "retriever: Recall@20" in done.stdout
    assert Workspace(settings.workspace).has("index")


@pytest.mark.thorough
def test_the_whole_chain(submit, settings):
    for job in CHAIN:
        done = submit(job)
        assert done.returncode == 0, done.stdout
    assert Workspace(settings.workspace).has("scores")


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
def test_nobody_submits_without_the_token(submit):
    stranger = {name: value for name, value in submit.environment.items() if name != "RAY_AUTH_TOKEN"}
    refused = submit("train_retriever", env=stranger | {"RAY_AUTH_MODE": "disabled"})

    assert refused.returncode != 0
    assert "401" in refused.stdout + refused.stderr or "nauthorized" in refused.stdout + refused.stderr


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
