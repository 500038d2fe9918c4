"""What the benchmarks of the endpoint share: the endpoint as a process of its own, callers, and the form of results."""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pyarrow.compute as pc

from benchmarks.hardware import commit, hardware, portable
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from ray_jobs.command import parse

START_S = 300.0
ADDRESS = re.compile(r"answers at (http://\S+?)/ ")
Body = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One call as its caller saw it."""

    status: int  # 0: the connection broke
    seconds: float
    sent: float  # time.perf_counter
    answer: dict[str, Any] | None = None
    retry_after: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a benchmark was asked for."""

    out: Path
    settings: Settings
    rest: Sequence[str]  # the settings' arguments
    began_at: str  # commit

    def write(self, module: str, figures: dict[str, Any]) -> None:
        """The result with what it was measured on."""
        described = {
            "command": f"python -m {module} --out FILE {' '.join(portable(self.rest))}",
            "hardware": hardware("cpu"),
            "commit": self.began_at,
            "date": time.strftime("%Y-%m-%d"),
            "load": os.getloadavg()[0],  # of the machine, this benchmark's own included
            **figures,
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(figures, indent=1), flush=True)


def asked(doc: str) -> Asked:
    """`--out FILE`, and the arguments of a job: `--config FILE --section.key value ...`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given, rest = parser.parse_known_args()
    return Asked(given.out, parse(rest)[0], rest, commit())


@contextmanager
def endpoint(arguments: Sequence[str], *, open_to_all: bool = True) -> Iterator[tuple[str, int]]:
    """Start `python -m serve_apps` with these arguments.

    Args:
        open_to_all: without tokens.

    Yields:
        Its address and its process id.
    """
    command = [sys.executable, "-m", "serve_apps", "--port", "0", *["--insecure-no-auth"] * open_to_all, *arguments]
    with tempfile.NamedTemporaryFile("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        with _ended(process):
            yield _address(process, Path(out.name)), process.pid


@contextmanager
def _ended(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def replicas(pid: int, deployment: str) -> list[psutil.Process]:
    """Processes of a deployment's replicas, below the endpoint's process."""
    title = f"ray::ServeReplica:optirag:{deployment}"
    return [child for child in psutil.Process(pid).children(recursive=True) if title in " ".join(_cmdline(child))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def _address(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := ADDRESS.search(log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"the endpoint did not start:\n{log.read_text()[-3000:]}")


async def call(session: aiohttp.ClientSession, path: str, body: Body, *, keep: bool = False) -> Sample:
    """One POST; `keep` keeps its answer."""
    sent = time.perf_counter()
    try:
        async with session.post(path, json=body) as response:
            answer = await response.json()
            seconds = time.perf_counter() - sent
            retry_after = response.headers.get("Retry-After")
            return Sample(response.status, seconds, sent, answer if keep else None, retry_after)
    except (TimeoutError, aiohttp.ClientError):
        return Sample(0, time.perf_counter() - sent, sent)


async def closed_loop(
    address: str, path: str, bodies: Iterator[Body], *, callers: int, calls: int | None = None,
    seconds: float = float("inf"), keep: bool = False,
) -> list[Sample]:  # fmt: skip
    """Callers who each ask again as soon as they have an answer, until that many calls are made or the time is over."""
    samples: list[Sample] = []
    ends, begun = time.perf_counter() + seconds, 0
    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def caller() -> None:
            nonlocal begun
            while (calls is None or begun < calls) and time.perf_counter() < ends:
                begun += 1
                samples.append(await call(session, path, next(bodies), keep=keep))

        await asyncio.gather(*(caller() for _ in range(callers)))
    return samples


async def open_loop(
    address: str, path: str, bodies: Iterator[Body], *, per_second: float, seconds: float
) -> list[Sample]:
    """Calls at a fixed rate, whatever becomes of those before."""
    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks: list[asyncio.Task[Sample]] = []
        began = time.perf_counter()
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            tasks.append(asyncio.create_task(call(session, path, next(bodies))))
        return await asyncio.gather(*tasks)


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> float:
    """Seconds until something holds, asked again and again."""
    began = time.perf_counter()
    while not await holds():
        if time.perf_counter() - began > timeout_s:
            raise SystemExit(f"waited {timeout_s:g} s in vain")
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


def score_bodies(dataset: Dataset, candidates: int, *, seed: int = 0) -> Iterator[Body]:
    """Endless requests: users with interactions, and items drawn for each."""
    generator = np.random.default_rng(seed)
    users = pc.unique(dataset.interactions["user_id"]).to_pylist()
    items = np.array(dataset.items["item_id"].to_pylist(), dtype=object)
    while True:
        user = users[generator.integers(len(users))]
        yield {"user_id": user, "item_ids": generator.choice(items, candidates, replace=False).tolist()}


def quantiles_ms(samples: Sequence[Sample]) -> dict[str, float]:
    """p50, p95 and p99 of the seconds, in milliseconds."""
    seconds = np.array([sample.seconds for sample in samples])
    return {f"p{share}": round(1e3 * float(np.percentile(seconds, share)), 2) for share in (50, 95, 99)}
