"""What capacity plans rest on: the driver at 100 M pairs, what a shard weighs, and simulated runs beside real ones.

    python -m benchmarks.capacity --out benchmarks/results/capacity.json --parts sizes receipts stream killed
    python -m benchmarks.capacity --out benchmarks/results/capacity.json --parts plan --users 2000000 --candidates 50
    python -m benchmarks.capacity --out benchmarks/results/capacity.json --parts simulated

plan       requests files -> shards, in a process of its own: seconds by step and memory; one entry for each size
sizes      bytes of requests, scores and receipts
receipts   publishing shards, taking a run over, keeping receipts and committing, on a local folder
stream     the whole job with stub stages that take no time: receipts per second, the driver's memory and CPU
killed     4 stub scorers of which one is killed, beside the simulation (`benchmarks.killed_scorer`)
simulated, distribution   runs of up to 1,000 GPUs (`benchmarks.simulated_runs`), with a plot each beside the JSON

Parts that are not asked for stay in the file as they are. Generated requests are removed again; 100 M pairs take some
4 GB in $TMPDIR.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.driver_work import apart, measured_plan, measured_receipts, measured_sizes
from benchmarks.hardware import commit, hardware
from benchmarks.killed_scorer import Killed, compared
from benchmarks.simulated_runs import Sweep, distributed, plot_distribution, plot_sweep, swept
from benchmarks.stub_job import CANDIDATES, StubJob, run_stub_job

PAIRS_PER_SHARD = 10_000
SHARDS = (1_000, 10_000, 50_000)
STREAMED = (500, 4_000)
KILLED = Killed(scorers=4, shards=60, shard_s=2.0, calm_runs=2, kills_s=(9.3, 5.0, 21.2, 27.5))
SWEEP = Sweep(
    {100: (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 600.0, 1200.0), 1000: (60.0, 160.0, 300.0, 600.0, 1200.0)},
    hours=8.0, num_shards=4_000_000, num_runs=(8, 40),
)  # fmt: skip
DISTRIBUTION = Sweep({1000: (300.0,)}, hours=8.0, num_shards=96_000, num_runs=(100, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, with .png beside it")
    parser.add_argument("--parts", nargs="+", required=True, choices=sorted(PARTS))
    parser.add_argument("--users", type=int, default=20_000, help="plan: users")
    parser.add_argument("--candidates", type=int, default=50, help="plan: of each")
    parser.add_argument("--shards", nargs="+", type=int, default=SHARDS, help="receipts: numbers of shards")
    given = parser.parse_args()
    began_at = commit()  # before the first part changes the file
    for part in given.parts:
        load = os.getloadavg()[0]
        figures = PARTS[part](given)
        result = json.loads(given.out.read_text()) if given.out.is_file() else {}
        entry = {
            "command": f"python -m benchmarks.capacity --parts {part}" + _sizes(part, given),
            "hardware": hardware("cpu"),
            "commit": began_at,
            "date": time.strftime("%Y-%m-%d"),
            "load_before_and_after": [load, os.getloadavg()[0]],
            **figures,
        }
        result[part] = {**result.get(part, {}), _named(given): entry} if part == "plan" else entry
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        if part in PLOTS:
            PLOTS[part](entry, given.out.with_name(f"{given.out.stem}-{part}.png"))


def _named(given: argparse.Namespace) -> str:
    return f"{given.users} users x {given.candidates}"


def _sizes(part: str, given: argparse.Namespace) -> str:
    if part == "plan":
        return f" --users {given.users} --candidates {given.candidates}"
    return " --shards " + " ".join(map(str, given.shards)) if part == "receipts" else ""


def _plan(given: argparse.Namespace) -> dict[str, Any]:
    return measured_plan(given.users, given.candidates, PAIRS_PER_SHARD)


def _stream(given: argparse.Namespace) -> dict[str, Any]:
    """The driver's time and memory per shard, from the difference of the sizes."""
    runs = [apart(_streamed, shards) for shards in STREAMED]
    few, many = runs[0], runs[-1]
    more = many["shards"] - few["shards"]
    slopes = {
        "kib_per_shard": (many["driver_rss_peak_mib"] - few["driver_rss_peak_mib"]) * 1024 / more,
        "driver_cpu_ms_per_shard": (many["driver_cpu_s"] - few["driver_cpu_s"]) * 1e3 / more,
        "ms_per_shard": (many["seconds"]["whole"] - few["seconds"]["whole"]) * 1e3 / more,
    }
    return {"runs": runs, **slopes}


def _streamed(shards: int) -> dict[str, Any]:
    began_s = time.process_time()
    run = run_stub_job(StubJob(shards * CANDIDATES, CANDIDATES, 0.0, 2))
    return run | {"driver_cpu_s": time.process_time() - began_s}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "plan": _plan,
    "sizes": lambda given: measured_sizes(PAIRS_PER_SHARD // 50, 50),
    "receipts": lambda given: {"rows": [measured_receipts(number) for number in given.shards]},
    "stream": _stream,
    "killed": lambda given: compared(KILLED),
    "simulated": lambda given: swept(SWEEP),
    "distribution": lambda given: distributed(DISTRIBUTION),
}
PLOTS: dict[str, Callable[[dict[str, Any], Path], None]] = {"simulated": plot_sweep, "distribution": plot_distribution}


if __name__ == "__main__":
    main()
