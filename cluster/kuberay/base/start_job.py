"""Run RayJobs in order: copies of suspended ones, each waited for. Standard library alone; a CronJob's pod runs it.

    python start_job.py optirag-score optirag-evaluate

A copy belongs to the Job whose pod this is, and is named after it: a second pod of the same Job finds it and waits on.
Exit code 2: a RayJob has not succeeded. Any other: this pod has failed, and the next one may go on.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FAILED = 2
POLL_S = 15.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TODAY = "$(date -u +%F)"
"""In a template's entrypoint the shell's date; in a copy the date on which it was made, so that a try after midnight
goes on with the run of the day before."""


@dataclass(frozen=True)
class RayJobs:
    """The RayJobs of one namespace, by the Kubernetes API."""

    url: str
    token_file: Path
    context: ssl.SSLContext | None = None

    @classmethod
    def of_pod(cls) -> "RayJobs":
        """With the service account that is mounted into this pod."""
        server = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        namespace = (ACCOUNT / "namespace").read_text()
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        return cls(f"https://{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs", ACCOUNT / "token", context)

    def get(self, name: str) -> dict[str, Any]:
        return self._asked("GET", f"{self.url}/{name}")

    def create(self, job: dict[str, Any]) -> bool:
        """False: there is one of this name already."""
        try:
            self._asked("POST", self.url, json.dumps(job).encode())
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return False
        return True

    def _asked(self, method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
        token = self.token_file.read_text()  # each time: Kubernetes replaces it every hour
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return json.load(answer)


def copy_of(template: dict[str, Any], job_name: str, job_uid: str, today: str) -> dict[str, Any]:
    """The RayJob that runs: the template's spec, not suspended, of today, owned by the Job."""
    spec = {name: value for name, value in template["spec"].items() if name not in ("suspend", "jobId")}
    name = f"{job_name}-{template['metadata']['name'].removeprefix('optirag-')}"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name, "uid": job_uid}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": template["metadata"].get("labels", {}), "ownerReferences": [owner]},
        "spec": spec | {"entrypoint": spec["entrypoint"].replace(TODAY, today)},
    }


def outcome(job: dict[str, Any]) -> str | None:
    """None while it runs; `SUCCEEDED`, or what it ended with instead."""
    status = job.get("status", {})
    if status.get("jobDeploymentStatus") not in ("Complete", "Failed"):
        return None
    if status["jobDeploymentStatus"] == "Complete" and status.get("jobStatus") == "SUCCEEDED":
        return "SUCCEEDED"
    return " ".join(str(status[name]) for name in ("jobStatus", "reason", "message") if status.get(name)) or "FAILED"


def run(jobs: RayJobs, template: str, job_name: str, job_uid: str, *, poll_s: float = POLL_S) -> str:
    """Create a copy, or find the one of an earlier pod, and wait until it ends."""
    job = copy_of(jobs.get(template), job_name, job_uid, f"{datetime.now(UTC):%Y-%m-%d}")
    name = job["metadata"]["name"]
    print(f"rayjob/{name}: {'created' if jobs.create(job) else 'found'}: {job['spec']['entrypoint']}", flush=True)
    while (ended := _outcome(jobs, name)) is None:
        time.sleep(poll_s)
    print(f"rayjob/{name}: {ended}", flush=True)
    return ended


def _outcome(jobs: RayJobs, name: str) -> str | None:
    """As `outcome`; an API server that is away for some time ends nothing."""
    try:
        return outcome(jobs.get(name))
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code != 429:
            raise
        print(f"rayjob/{name}: the API server answers {error.code}", flush=True)
    except OSError as error:
        print(f"rayjob/{name}: no API server: {error}", flush=True)
    return None


def main() -> None:
    jobs = RayJobs.of_pod()
    for template in sys.argv[1:]:
        if run(jobs, template, os.environ["JOB_NAME"], os.environ["JOB_UID"]) != "SUCCEEDED":
            raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
