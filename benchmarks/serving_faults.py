"""What callers of the endpoint notice of a rolling update, and of killed scorers.

    python -m benchmarks.serving_faults --out benchmarks/results/serving-faults.json --config FILE [--workspace DIR]

rollout   4 callers without retries while the endpoint rolls to newly trained heads, and back to other settings
kills     10 SIGKILLs of a scorer, one after the other: callers with the client's retries, and others without

The workspace gets new exit heads: give a copy.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.endpoint import Asked, Body, asked, endpoint, replicas, score_bodies
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.inference.opening import open_artifacts
from ray_jobs.calibrate_exits import calibrate_exits
from ray_jobs.command import parse
from ray_jobs.train_exit_heads import train_exit_heads
from serve_apps.app import Doors
from serve_apps.client import Client, ClientError
from serve_apps.local import started, update

CALLERS = 4
CALLS = 2000
KILLS = 10
CANDIDATES = 10
SETTINGS = ["--actors.torch_threads", "1", "--actors.num_cpus_per_scorer", "0.5", "--ray.num_cpus", "8"]
BACK_S = 120.0


@dataclass
class Counts:
    """What callers saw; several threads add to it."""

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)


def main() -> None:
    job = asked(__doc__)
    dataset = Dataset.load(open_artifacts(job.settings, "dataset")["dataset"].path)
    figures = {"rollout": _rollout(parse([*job.rest, *SETTINGS])[0], dataset), "kills": _kills(job, dataset)}
    job.write("benchmarks.serving_faults", figures)


def _rollout(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    doors = Doors(None, True)
    with started(settings, doors) as front:
        address = f"http://{front.host}:{front.port}"
        heads = settings.exit_heads.model_copy(update={"epochs": settings.exit_heads.epochs + 1})
        newer = settings.model_copy(update={"exit_heads": heads})
        train_exit_heads(newer)
        calibrate_exits(newer)
        with calling(address, dataset, callers=CALLERS, calls=CALLS, max_retries=0) as counts:
            _wait(lambda: counts.calls >= CALLS // 4)
            before = counts.calls
            update(newer, doors)
            during = counts.calls - before
    return {
        "callers": CALLERS, "calls": counts.calls, "while_rolling": during, "failed": dict(counts.failed),
        "calls_by_model_version": dict(counts.versions),
    }  # fmt: skip


def _kills(job: Asked, dataset: Dataset) -> dict[str, Any]:
    arguments = [*job.rest, *SETTINGS, "--serving.num_scorers", "2"]
    back = []
    with (
        endpoint(arguments) as (address, pid),
        calling(address, dataset, callers=2, max_retries=8) as retrying,
        calling(address, dataset, callers=2, max_retries=0) as raw,
    ):
        for _ in range(KILLS):
            _wait(lambda: len(replicas(pid, "Scorer")) == 2)
            time.sleep(8.0)  # answers of both
            killed = random.choice(replicas(pid, "Scorer")).pid
            os.kill(killed, signal.SIGKILL)
            began = time.perf_counter()
            _wait(lambda gone=killed: gone not in {one.pid for one in replicas(pid, "Scorer")})
            _wait(lambda: len(replicas(pid, "Scorer")) == 2)
            back.append(round(time.perf_counter() - began, 1))
        time.sleep(10.0)
    return {
        "kills": KILLS, "seconds_until_two_processes": back,
        "with_retries": {"calls": retrying.calls, "failed": dict(retrying.failed)},
        "without": {"calls": raw.calls, "failed": dict(raw.failed)},
    }  # fmt: skip


@contextmanager
def calling(
    address: str, dataset: Dataset, *, callers: int, max_retries: int, calls: int | None = None
) -> Iterator[Counts]:
    """Callers in threads, until so many calls are made, or the body ends."""
    counts, lock, ends = Counts(), threading.Lock(), threading.Event()

    def caller(number: int) -> None:
        with Client(address, max_retries=max_retries) as client:
            for body in score_bodies(dataset, CANDIDATES, seed=number):
                with lock:
                    if ends.is_set() or (calls is not None and counts.calls >= calls):
                        return
                    counts.calls += 1
                _one(client, body, counts, lock)

    threads = [threading.Thread(target=caller, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        if calls is None:
            ends.set()
        for thread in threads:
            thread.join()


def _one(client: Client, body: Body, counts: Counts, lock: threading.Lock) -> None:
    try:
        answer = client.score(body["user_id"], body["item_ids"])
    except ClientError as error:
        with lock:
            counts.failed[f"{type(error).__name__} {getattr(error, 'status', '')}".strip()] += 1
        return
    with lock:
        counts.versions[answer.model_version] += 1


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BACK_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {BACK_S:g} s in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
