"""`start_job.py` against an HTTP server that keeps RayJobs as the Kubernetes API does."""

import importlib.util
import json
import sys
import threading
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.manifests import ROOT

FILE = ROOT / "cluster" / "kuberay" / "base" / "start_job.py"
TEMPLATE = {
    "metadata": {"name": "optirag-nightly", "uid": "1", "labels": {"team": "books"}},
    "spec": {"suspend": True, "backoffLimit": 2, "entrypoint": "python -m x --run.name $(date -u +%F)"},
}


def loaded() -> Any:
    specification = importlib.util.spec_from_file_location("start_job", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["start_job"] = module  # where dataclasses look their annotations up
    specification.loader.exec_module(module)
    return module


start_job = loaded()


@dataclass
class Cluster:
    """RayJobs by name; a created one gets the `states` one after another, a number is the status of a refusal."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=lambda: {"optirag-nightly": TEMPLATE})
    states: list[dict[str, str] | int] = field(default_factory=list)
    created: list[str] = field(default_factory=list)

    def get(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return 404, {}
        if name in self.created and self.states:
            state = self.states.pop(0)
            if isinstance(state, int):
                return state, {}
            self.jobs[name]["status"] = state
        return 200, self.jobs[name]

    def create(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {}
        self.jobs[name] = job
        self.created.append(name)
        return 201, job


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def jobs(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """The RayJobs of a server on loopback, which wants the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*cluster.get(self.path.rpartition("/")[2]))

        def do_POST(self) -> None:
            self.answer(*cluster.create(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def answer(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status if self.headers["Authorization"] == "Bearer secret" else 401)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    token = tmp_path / "token"
    token.write_text("secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield start_job.RayJobs(f"http://127.0.0.1:{server.server_address[1]}/rayjobs", token)
        server.shutdown()


def run(jobs: Any) -> str:
    return start_job.run(jobs, "optirag-nightly", "optirag-nightly-29402280", "uid-2", poll_s=0.0)


def test_a_copy_is_not_suspended_of_one_day_and_owned_by_its_job():
    copy = start_job.copy_of(TEMPLATE, "optirag-nightly-29402280", "uid-2", "2026-11-30")

    assert copy["metadata"]["name"] == "optirag-nightly-29402280-nightly"
    assert copy["metadata"]["labels"] == {"team": "books"}
    assert copy["metadata"]["ownerReferences"][0]["uid"] == "uid-2"
    assert copy["spec"] == {"backoffLimit": 2, "entrypoint": "python -m x --run.name 2026-11-30"}


def test_a_job_is_created_and_waited_for(jobs, cluster):
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    cluster.states = [{}, {"jobDeploymentStatus": "Initializing"}, {"jobDeploymentStatus": "Running"}, 503, done]

    assert run(jobs) == "SUCCEEDED"
    assert cluster.created == ["optirag-nightly-29402280-nightly"]
    assert cluster.states == []


def test_a_second_pod_waits_for_the_job_of_the_first(jobs, cluster):
    cluster.states = [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}]

    assert run(jobs) == "SUCCEEDED"
    assert run(jobs) == "SUCCEEDED"
    assert len(cluster.created) == 1


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, "FAILED AppFailed"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "STOPPED"),
        ({"jobDeploymentStatus": "Failed"}, "FAILED"),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, None),
    ],
)
def test_what_ends_a_job_otherwise(status, ended):
    assert start_job.outcome({"status": status}) == ended


def test_a_template_that_is_not_there_and_a_wrong_token_are_errors(jobs, cluster):
    del cluster.jobs["optirag-nightly"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        run(jobs)

    jobs.token_file.write_text("wrong")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        run(jobs)


def test_a_job_that_fails_ends_the_pod_with_the_code_that_ends_the_schedules_job(jobs, cluster, monkeypatch):
    cluster.states = [{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}]
    monkeypatch.setattr(start_job.RayJobs, "of_pod", lambda: jobs)
    monkeypatch.setattr(sys, "argv", ["start_job.py", "optirag-nightly", "optirag-never"])
    for name in ("JOB_NAME", "JOB_UID"):
        monkeypatch.setenv(name, "night-1")

    with pytest.raises(SystemExit) as ended:
        start_job.main()

    assert ended.value.code == 2  # starter.yaml: FailJob
    assert cluster.created == ["night-1-nightly"]
