"""A real run of stub scorers, one of them killed, beside its simulation.

Calm runs and one killed run give what the simulation is told: the scorers' time per shard beside its pairs, the
driver's per receipt, and the seconds until a killed scorer takes shards again. The other killed runs are predicted.
Seconds are from the begin of the first shard to the last receipt.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.driver_work import apart
from benchmarks.stub_job import CANDIDATES, RAY, receipt_times, requests
from benchmarks.stubs import StubBuild, StubScore, stub_run
from optirag_core.config.settings import Settings
from optirag_core.planning.simulation import Cluster, Shards, simulate
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import plan_shards
from optirag_core.runs.run import Run
from optirag_core.runs.work import begin
from ray_jobs.run_progress import finish
from ray_jobs.shard_stream import Stage

WAIT_S = 0.01


@dataclass(frozen=True)
class Killed:
    """What is run."""

    scorers: int
    shards: int
    shard_s: float
    calm_runs: int
    kills_s: Sequence[float]  # after the begin of the first shard, one run each; the first one calibrates


def compared(work: Killed) -> dict[str, Any]:
    """Real and simulated seconds of every run."""
    calm = [apart(_real, work, None) for _ in range(work.calm_runs)]
    killed = [apart(_real, work, kill_s) for kill_s in work.kills_s]
    told = _told(work, calm, killed[0])
    rows = [{"kill_s": None, "real_s": run["seconds"]} for run in calm]
    rows += [{"kill_s": run["killed_s"], "real_s": run["seconds"], "calibrates": run is killed[0]} for run in killed]
    for row in rows:
        row["simulated_s"] = _simulated(work, told, row["kill_s"])
        row["error"] = row["simulated_s"] / row["real_s"] - 1
    predicted = [row["error"] for row in rows if row["kill_s"] is not None and not row["calibrates"]]
    return {
        "work": asdict(work), "told": told, "rows": rows, "calm": calm, "killed": killed,
        "largest_error_of_the_predicted": max(predicted, key=abs, default=None),
    }  # fmt: skip


def _told(work: Killed, calm: Sequence[dict[str, Any]], killed: dict[str, Any]) -> dict[str, float]:
    """Of the calm runs what shards take; of the killed one how long its scorer was away."""
    rounds = work.shards / work.scorers
    beside_s = statistics.mean(run["seconds"] for run in calm) / rounds - work.shard_s
    return {"shard_s": work.shard_s + beside_s, "beside_pairs_s": beside_s, "away_s": killed["away_s"]}


def _simulated(work: Killed, told: dict[str, float], kill_s: float | None) -> float:
    cluster = Cluster(work.scorers, return_s=told["away_s"])
    losses = {} if kill_s is None else {0: [kill_s]}
    return simulate(cluster, Shards(work.shards, told["shard_s"]), seed=0, losses=losses).finish_s


def _real(work: Killed, kill_s: float | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
        run, files = stub_run(f"{folder}/workspace", "stub"), Path(folder) / "shards"
        plan = plan_shards(requests(work.shards * CANDIDATES), CANDIDATES, files)
        killer = _Killer(run, work.shard_s, kill_s)
        killer.start()
        settings = Settings(
            actors={
                "num_scorers": work.scorers, "num_cpus_per_scorer": 1.6 / work.scorers,
                "num_cpus_per_prompt_builder": 0.2,
            },
            ray=RAY,
        )  # fmt: skip
        where = {"workspace": run.storage.uri, "run": run.name}
        build = Stage(StubBuild, where | {"prompt_tokens": 100})
        score = Stage(StubScore, where | {"seconds_per_pair": work.shard_s / CANDIDATES})
        with begin(run, RunIdentity.of({"plan": plan.digest}), plan, files, lease_s=60.0) as begun:
            with closing(finish(begun, build, score, settings)) as receipts:
                for receipt in receipts:
                    begun.add(receipt)
            manifest = begun.commit(parents={}, max_reject_share=0.0)
        killer.join()
        return _figures(run, work, killer) | {"committed_pairs": manifest["metrics"]["scored"]}


class _Killer(threading.Thread):
    """Kills one scorer at its moment; remembers when that was."""

    def __init__(self, run: Run, shard_s: float, kill_s: float | None) -> None:
        super().__init__(daemon=True)
        self._receipts, self._shard_s, self._kill_s = Path(run.uri) / "receipts", shard_s, kill_s
        self.killed_at: float | None = None  # seconds since 1970, as files' times

    def run(self) -> None:
        if self._kill_s is None:
            return
        while not (first := [path.stat().st_mtime for path in self._receipts.glob("*.json")]):
            time.sleep(WAIT_S)
        time.sleep(max(0.0, min(first) - self._shard_s + self._kill_s - time.time()))
        victim = next(p for p in psutil.Process().children(recursive=True) if "StubScore" in " ".join(p.cmdline()))
        victim.kill()
        self.killed_at = time.time()


def _figures(run: Run, work: Killed, killer: _Killer) -> dict[str, Any]:
    """A scorer that was killed is away until a shard's time before the receipt of the one that it was at."""
    times = receipt_times(run)
    began = min(times.values()) - work.shard_s
    figures: dict[str, Any] = {"seconds": max(times.values()) - began, "shards": len(times)}
    if killer.killed_at is not None:
        held_back = _held_back(times, killer.killed_at + work.shard_s)
        figures |= {
            "killed_s": killer.killed_at - began,
            "away_s": times[held_back] - work.shard_s - killer.killed_at,
            "held_back_shard": held_back,
        }
    return figures


def _held_back(times: Mapping[int, float], others_end: float) -> int:
    """The shard that was being scored: the lowest that ends later than those that others had begun by then.

    Shards are handed out in order, so whatever waited behind the scored ones has a higher number.
    """
    return min(shard for shard, ended in times.items() if ended > others_end)
