"""The batch job with stub stages: requests -> plan -> Ray -> attempts and receipts -> commit, timed and weighed."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import ray

from benchmarks.stubs import StubBuild, StubScore, stub_run
from optirag_core.config import RaySettings, ScoringSettings
from optirag_core.data.schema import REQUESTS
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import Shard, plan_shards
from optirag_core.runs.run import Run, drive
from ray_jobs.score import Progress
from ray_jobs.session import ray_session
from ray_jobs.shard_stream import Stage, stream

CANDIDATES = 25
"""Pairs per user: the paper's requests have 20 to 50."""
USERS_PER_TABLE = 2000
PROMPT_TOKENS = 1500
"""A user's prefix and 25 suffixes of some 20 tokens."""
RAY = RaySettings(num_cpus=2, object_store_mib=256)
INTERVAL_S = 0.05
MIB = 2**20


@dataclass(frozen=True)
class StubWork:
    """What a stub job is asked for."""

    pairs: int
    pairs_per_shard: int
    seconds_per_pair: float
    actors: int = 1


def run_stub_job(work: StubWork) -> dict[str, Any]:
    """One whole call in this process, with figures; memory is that of a driver where the process is fresh."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder, MemoryPeak() as memory:
        job = StubJob(work, Path(folder) / "workspace")
        clock = {"begun": time.perf_counter()}
        plan = plan_shards(requests(work.pairs), work.pairs_per_shard, Path(folder) / "shards")
        clock["planned"] = time.perf_counter()
        manifest = drive(
            job.run, RunIdentity.of({"plan": plan.digest}), plan, Path(folder) / "shards", job.execute,
            parents={}, lease_s=job.options.lease_s, max_reject_share=0.0,
        )  # fmt: skip
        clock["committed"] = time.perf_counter()
        times = receipt_times(job.run)
    whole = clock["committed"] - clock["begun"]
    steady = float(times[-1] - times[0]) / sum(shard.pairs for shard in plan.shards[1:])
    return {
        **asdict(work),
        "shards": len(plan.shards),
        "committed_pairs": manifest["metrics"]["scored"],
        "seconds": {
            "whole": whole,
            "plan": clock["planned"] - clock["begun"],
            "to_first_receipt": job.arrivals[0] - clock["planned"],
            "to_last_receipt": job.arrivals[-1] - job.arrivals[0],
            "to_commit": clock["committed"] - job.arrivals[-1],
        },
        "steady_ms_per_pair": steady * 1e3,
        "whole_ms_per_pair": whole / plan.pairs * 1e3,
        "steady_ms_per_shard_beyond_sleep": (steady - work.seconds_per_pair / work.actors) * work.pairs_per_shard * 1e3,
        "middle_shards_per_s": middle_rate(times),
        "driver_rss_before_mib": memory.before / MIB,
        "driver_rss_peak_mib": memory.peak / MIB,
        "driver_rss_beyond_mib": (memory.peak - memory.before) / MIB,
        "object_store_peak_mib": job.store_peak / MIB,
    }


class StubJob:
    """As `ray_jobs.score.Job`, with stub stages, and notes what happens when."""

    def __init__(self, work: StubWork, workspace: Path) -> None:
        self.run = stub_run(str(workspace), "stub")
        cpus = 0.8 * RAY.num_cpus / work.actors  # logical: whoever sleeps needs none
        self.options = ScoringSettings(
            num_actors=work.actors, num_cpus_per_actor=min(0.5, cpus), num_cpus_per_prompt_actor=0.2
        )
        where = {"workspace": str(workspace), "run": self.run.name}
        self._build = Stage(StubBuild, where | {"prompt_tokens": PROMPT_TOKENS})
        self._score = Stage(StubScore, where | {"seconds_per_pair": work.seconds_per_pair})
        self._asked = work.pairs
        self.arrivals: list[float] = []  # of the receipts, in this process
        self.store_peak = 0.0  # bytes, as seen at receipts

    def execute(self, shards: Sequence[Shard]) -> Iterator[Receipt]:
        with ray_session(RAY), closing(Progress(self._asked, 0)) as progress:
            for receipt in stream(shards, self._build, self._score, self.options):
                self.arrivals.append(time.perf_counter())
                progress.add(receipt)
                self.store_peak = max(self.store_peak, _store_used())
                yield receipt


class MemoryPeak:
    """Resident memory of this process while the body runs."""

    def __enter__(self) -> Self:
        self._process = psutil.Process(os.getpid())
        self.before = self.peak = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self.peak = max(self.peak, self._process.memory_info().rss)


def requests(pairs: int) -> Iterator[pa.Table]:
    """Tables of `REQUESTS`, made as they are asked for."""
    for start in range(0, pairs, USERS_PER_TABLE * CANDIDATES):
        stop = min(pairs, start + USERS_PER_TABLE * CANDIDATES)
        counts = [min(CANDIDATES, pairs - n) for n in range(start, stop, CANDIDATES)]
        users = [f"user-{start // CANDIDATES + n:08}" for n in range(len(counts))]
        items = [[f"item-{(start + 7 * n + k) % 99_991:06}" for k in range(count)] for n, count in enumerate(counts)]
        nulls = [pa.nulls(len(users), REQUESTS.field(name).type) for name in REQUESTS.names[2:]]
        yield pa.table([pa.array(users), pa.array(items, pa.list_(pa.string())), *nulls], schema=REQUESTS)


def receipt_times(run: Run) -> np.ndarray:
    """When the receipts were written, in order: steadier than when the driver saw them. Of a local workspace."""
    folder = Path(run.uri) / "receipts"
    return np.sort([file.stat().st_mtime for file in folder.glob("*.json")])


def middle_rate(times: np.ndarray) -> float:
    """Receipts per second in the middle half: the slope through them, since several actors' come in bursts."""
    count = len(times)
    middle = slice(count // 4, max(count // 4 + 2, count - count // 4))
    return float(np.polyfit(times[middle], np.arange(count)[middle], 1)[0]) if count > 2 else 0.0


def _store_used() -> float:
    name = "object_store_memory"
    return ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)
