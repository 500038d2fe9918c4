"""What the batch job adds to the engine, and how its cost grows with pairs and actors.

    python -m benchmarks.batch --out benchmarks/results/batch.json
    python -m benchmarks.batch --out benchmarks/results/batch.json --parts size --plan tiny

overhead   the whole job on one scorer actor beside the bare engine on the same shards, pairs per second of both
size       the job with stub stages (`benchmarks.stubs`) on more and more pairs: time per pair, memory of the driver
actors     the same on more and more actors that sleep: receipts per second against one actor's

Parts that are not asked for stay in the file as they are. Every run has a process of its own, except where this
process has a Ray already: then it is used. Steady rates are those between a run's first receipt and its last. Ray
gives its workers a niceness of 15: beside other work on the machine the job gets less of it than the bare engine.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from benchmarks.batch_overhead import OverheadWork, run_overhead
from benchmarks.hardware import commit, hardware
from benchmarks.stub_job import StubJob, run_stub_job
from optirag_core.engine.memory import keep_freed_memory

PARTS = ("overhead", "size", "actors")


@dataclass(frozen=True)
class Plan:
    """What the parts run."""

    overhead: OverheadWork
    sizes: Mapping[int, int]  # pairs -> runs, of which the median counts: few shards are over too soon for one
    pairs_per_shard: int
    seconds_per_pair: float
    actors: tuple[int, ...]
    shard_seconds: tuple[float, ...]  # of the actors' sleep
    shards_per_actor: int


PLANS = {
    "full": Plan(
        OverheadWork(
            hidden_size=512, num_layers=8, users=300, ratings_per_user=30.0, candidates=(20, 50),
            pairs_per_shard=2000, max_history=10, turns={1: 1, 2: 1},
        ),
        {10_000: 5, 100_000: 2, 1_000_000: 1}, 2000, 0.0002, (1, 2, 4), (1.0, 0.2, 0.05), 24,
    ),
    "tiny": Plan(
        OverheadWork(
            hidden_size=32, num_layers=4, users=60, ratings_per_user=10.0, candidates=(2, 5),
            pairs_per_shard=80, max_history=3, turns={1: 1},
        ),
        {200: 1, 600: 1}, 100, 0.0001, (1, 2), (0.02,), 4,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, with a .png beside it")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--plan", default="full", choices=sorted(PLANS))
    parser.add_argument("--threads", nargs="+", type=int, help="overhead: only these of the plan's numbers of threads")
    given = parser.parse_args()
    plan = PLANS[given.plan]
    if given.threads:
        turns = {threads: plan.overhead.turns[threads] for threads in given.threads}
        plan = replace(plan, overhead=replace(plan.overhead, turns=turns))
    measure = {"overhead": overhead, "size": size, "actors": actors}
    result = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    began_at = commit()  # before the first part changes the file
    for part in given.parts:
        loads = [os.getloadavg()[0]]
        figures = measure[part](plan)
        loads.append(os.getloadavg()[0])
        result[part] = {
            "command": f"python -m benchmarks.batch --plan {given.plan} --parts {part}"
            + (f" --threads {' '.join(map(str, given.threads))}" if given.threads else ""),
            "hardware": hardware("cpu"),
            "commit": began_at,
            "date": time.strftime("%Y-%m-%d"),
            "load_before_and_after": loads,  # of the machine, this benchmark's own counted afterwards
            **figures,
        }
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    if "size" in result:
        plot(result["size"]["sizes"], given.out.with_suffix(".png"))


def overhead(plan: Plan) -> dict[str, Any]:
    return apart(run_overhead, plan.overhead, initializer=keep_freed_memory)


def size(plan: Plan) -> dict[str, Any]:
    """Each size as often as planned, the smallest first; ratios are against the smallest."""
    runs = [
        _shown(apart(run_stub_job, StubJob(pairs, plan.pairs_per_shard, plan.seconds_per_pair)))
        for pairs, turns in plan.sizes.items()
        for _ in range(turns)
    ]
    figures = ("steady_ms_per_pair", "whole_ms_per_pair", "driver_rss_peak_mib", "driver_rss_beyond_mib",
               "object_store_peak_mib")  # fmt: skip
    sizes = []
    for pairs in plan.sizes:
        own = [run for run in runs if run["pairs"] == pairs]
        medians = {name: statistics.median(run[name] for run in own) for name in figures}
        ratios = {f"{name}_ratio": value / sizes[0][name] if sizes else 1.0 for name, value in medians.items()}
        sizes.append({"pairs": pairs, "committed_pairs": own[0]["committed_pairs"], **medians, **ratios})
    return {"seconds_per_pair": plan.seconds_per_pair, "sizes": sizes, "runs": runs}


def actors(plan: Plan) -> dict[str, Any]:
    """For each duration of a shard and each number of actors, which all finish the same number of shards."""
    rows = []
    for seconds in plan.shard_seconds:
        for number in plan.actors:
            pairs = plan.shards_per_actor * number * 100
            run = _shown(apart(run_stub_job, StubJob(pairs, 100, seconds / 100, number)))
            one = rows[-1]["one"] if number > plan.actors[0] else run["middle_shards_per_s"]
            speed_up = run["middle_shards_per_s"] / one if one else 0.0
            rows.append(
                {"shard_seconds": seconds, "one": one, "speed_up": speed_up, "of_linear": speed_up / number, **run}
            )
    return {"rows": rows}


def apart(function: Callable[..., Any], *arguments: Any, initializer: Callable[[], Any] | None = None) -> Any:
    """Call in a fresh process: what ran before costs neither memory nor time there."""
    if ray.is_initialized():
        return function(*arguments)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=initializer) as pool:
        return pool.submit(function, *arguments).result()


def plot(sizes: Sequence[dict[str, float]], path: Path) -> None:
    """Cost against size; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(9, 4))
    pairs = [size["pairs"] for size in sizes]
    time_axes, memory_axes = (
        figure.add_subplot(1, 2, place, xscale="log", xlabel="pairs", ylabel=label)
        for place, label in ((1, "ms per pair"), (2, "MiB"))
    )
    time_axes.plot(pairs, [size["whole_ms_per_pair"] for size in sizes], "s--", label="whole call, with Ray's start")
    time_axes.plot(pairs, [size["steady_ms_per_pair"] for size in sizes], "o-", label="first to last receipt")
    memory_axes.plot(pairs, [size["driver_rss_beyond_mib"] for size in sizes], "o-", label="driver, added by the job")
    memory_axes.plot(pairs, [size["object_store_peak_mib"] for size in sizes], "s--", label="object store, peak")
    for axes in (time_axes, memory_axes):
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(run), flush=True)
    return run


if __name__ == "__main__":
    main()
