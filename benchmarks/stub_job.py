"""The batch job with stub stages: requests -> plan -> Ray -> attempts and receipts -> commit, timed and weighed."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import ray

from benchmarks.stubs import StubBuild, StubScore, stub_run
from optirag_core.config.run import RaySettings
from optirag_core.config.settings import Settings
from optirag_core.data.schema import REQUESTS
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import ShardPlan, plan_shards
from optirag_core.runs.run import Run
from optirag_core.runs.work import begin
from ray_jobs.run_progress import finish
from ray_jobs.shard_stream import Stage

CANDIDATES = 25
"""Pairs per user: the paper's requests have 20 to 50."""
USERS_PER_TABLE = 2000
PROMPT_TOKENS = 1500
"""A user's prefix and 25 suffixes of some 20 tokens."""
RAY = RaySettings(num_cpus=2, object_store_mib=256)
INTERVAL_S = 0.05
MIB = 2**20


@dataclass(frozen=True)
class StubJob:
    """What a stub job is asked for."""

    pairs: int
    pairs_per_shard: int
    seconds_per_pair: float
    actors: int = 1


@dataclass(frozen=True)
class Driven:
    """A stub job's run, and what its driver saw."""

    manifest: dict[str, Any]
    arrivals: list[float]  # when each receipt came, in seconds of `time.perf_counter`
    committed_s: float
    store_peak: float  # bytes in the object store, the most that was seen at a receipt


def run_stub_job(job: StubJob) -> dict[str, Any]:
    """One whole call in this process, with figures; memory is that of a driver where the process is fresh."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder, MemoryPeak() as memory:
        run, shards = stub_run(f"{folder}/workspace", "stub"), Path(folder) / "shards"
        begun_s = time.perf_counter()
        plan = plan_shards(requests(job.pairs), job.pairs_per_shard, shards)
        planned_s = time.perf_counter()
        driven = _drive(job, run, plan, shards)
        times = receipt_times(run)
    first, last = driven.arrivals[0], driven.arrivals[-1]
    whole, steady = driven.committed_s - begun_s, steady_seconds(times) / steady_pairs(plan, times)
    return {
        **asdict(job),
        "shards": len(plan.shards),
        "committed_pairs": driven.manifest["metrics"]["scored"],
        "seconds": {
            "whole": whole,
            "plan": planned_s - begun_s,
            "to_first_receipt": first - planned_s,
            "to_last_receipt": last - first,
            "to_commit": driven.committed_s - last,
        },
        "steady_ms_per_pair": steady * 1e3,
        "whole_ms_per_pair": whole / plan.pairs * 1e3,
        "steady_ms_per_shard_beyond_sleep": (steady - job.seconds_per_pair / job.actors) * job.pairs_per_shard * 1e3,
        "middle_shards_per_s": middle_rate([*times.values()]),
        "driver_rss_before_mib": memory.before / MIB,
        "driver_rss_peak_mib": memory.peak / MIB,
        "driver_rss_beyond_mib": (memory.peak - memory.before) / MIB,
        "object_store_peak_mib": driven.store_peak / MIB,
    }


def _drive(job: StubJob, run: Run, plan: ShardPlan, files: Path) -> Driven:
    """As `ray_jobs.score` does it, with stub stages."""
    cpus = 0.8 * RAY.num_cpus / job.actors  # logical: whoever sleeps needs none
    settings = Settings(
        actors={
            "num_scorers": job.actors, "num_cpus_per_scorer": min(0.5, cpus), "num_cpus_per_prompt_builder": 0.2
        },
        ray=RAY,
    )  # fmt: skip
    where = {"workspace": run.storage.uri, "run": run.name}
    build = Stage(StubBuild, where | {"prompt_tokens": PROMPT_TOKENS})
    score = Stage(StubScore, where | {"seconds_per_pair": job.seconds_per_pair})
    arrivals, store_peak = [], 0.0
    with begin(run, RunIdentity.of({"plan": plan.digest}), plan, files, lease_s=settings.run.lease_s) as work:
        with closing(finish(work, build, score, settings)) as receipts:
            for receipt in receipts:
                arrivals.append(time.perf_counter())
                store_peak = max(store_peak, _store_used())
                work.add(receipt)
        manifest = work.commit(parents={}, max_reject_share=0.0)
    return Driven(manifest, arrivals, time.perf_counter(), store_peak)


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


def receipt_times(run: Run) -> dict[int, float]:
    """Shard -> when its receipt was written, in order of time: steadier than when the driver saw it.

    Args:
        run: of a local workspace.
    """
    times = {int(file.stem): file.stat().st_mtime for file in (Path(run.uri) / "receipts").glob("*.json")}
    return dict(sorted(times.items(), key=lambda entry: entry[1]))


def steady_seconds(times: Mapping[int, float]) -> float:
    """From the first receipt to the last."""
    first, *_, last = times.values()
    return last - first


def steady_pairs(plan: ShardPlan, times: Mapping[int, float]) -> int:
    """Pairs of the shards that were finished in these seconds: of all but the first."""
    return sum(shard.pairs for shard in plan.shards if shard.number != next(iter(times)))


def middle_rate(times: Sequence[float]) -> float:
    """Receipts per second in the middle half: the slope through them, since several actors' come in bursts.

    Args:
        times: in order.
    """
    count = len(times)
    middle = slice(count // 4, max(count // 4 + 2, count - count // 4))
    return float(np.polyfit(times[middle], np.arange(count)[middle], 1)[0]) if count > 2 else 0.0


def _store_used() -> float:
    name = "object_store_memory"
    return ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)
