"""Latency and rate of the endpoint against concurrency, beside the bare engine on the same prompts.

    python -m benchmarks.serving_load --out benchmarks/results/serving-load.json --config FILE [--workspace DIR]

load       callers 1 to 64 who each ask again at once, 1, 10 and 50 items a call: p50, p95, p99 and pairs per second
overhead   the endpoint's median less the engine's own for the same calls, one caller; the engine also with a pause
           before each call, as HTTP gives it: cores that have been idle are slower at first
batching   pairs per second of 16 callers over one caller, beside the same of the engine, 16 groups in flight over one

The engine has one thread, so that the other processes have a core; the exit policy is the normal one throughout.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.endpoint import Asked, Body, asked, closed_loop, endpoint, quantiles_ms, score_bodies
from optirag_core.data.dataset import Dataset
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.scorer import Scorer
from optirag_core.inference.online import OnlineContexts
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_scorers
from optirag_core.prompting.assembly import Request

CALLERS = (1, 2, 4, 8, 16, 32, 64)
CANDIDATES = (1, 10, 50)
CELL_S = 8.0
WARM_CALLS = 10
BARE_CALLS = 120
PAUSE_S = 0.01
TURNS = 3  # of the endpoint and the engine, alternating
SETTINGS = ["--actors.torch_threads", "1", "--serving.overload_share", "1.0", "--serving.max_calls", "256"]


def main() -> None:
    job = asked(__doc__)
    bare = Bare(job)
    with endpoint([*job.rest, *SETTINGS]) as (address, _):
        figures = {"load": _load(address, bare.dataset)}
        figures |= {"one_caller": [_one_caller(address, bare, candidates) for candidates in CANDIDATES]}
        figures |= {"batching": [_batching(address, bare, candidates) for candidates in CANDIDATES]}
    job.write("benchmarks.serving_load", figures)
    plot(figures["load"], job.out.with_suffix(".png"))


class Bare:
    """The engine without an endpoint, on the prompts that the endpoint would build."""

    def __init__(self, job: Asked) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        artifacts = open_artifacts(job.settings, *TRAINED)
        self.dataset = Dataset.load(artifacts["dataset"].path)
        self._contexts = OnlineContexts.open(job.settings, artifacts, load_tokenizer(artifacts["llm"].path))
        self._scorer: Scorer = open_scorers(job.settings, artifacts, device="cpu")["normal"]

    def groups(self, bodies: Sequence[Body]) -> list[UserGroup]:
        """What the engine is asked for these calls."""
        assembled = [self._contexts.assemble(Request(body["user_id"], body["item_ids"])) for body in bodies]
        return [one.prompt.group for one in assembled if one.prompt]

    def seconds(self, groups: Sequence[UserGroup], *, pause_s: float = 0.0) -> list[float]:
        """Of each, alone, after a pause."""
        times = []
        for group in groups:
            time.sleep(pause_s)
            began = time.perf_counter()
            self._scorer.score([group])
            times.append(time.perf_counter() - began)
        return times

    def pairs_per_s(self, groups: Sequence[UserGroup], in_flight: int) -> float:
        """With that many groups in flight at any time."""
        waiting, flying, began = iter(groups), 0, time.perf_counter()
        for group in islice(waiting, in_flight):
            self._scorer.add([group])
            flying += 1
        while flying:
            for _ in self._scorer.step():
                flying -= 1
                for group in islice(waiting, 1):
                    self._scorer.add([group])
                    flying += 1
        return sum(len(group.suffixes) for group in groups) / (time.perf_counter() - began)


def _load(address: str, dataset: Dataset) -> list[dict[str, Any]]:
    rows = []
    for candidates in CANDIDATES:
        for callers in CALLERS:
            row = _cell(address, score_bodies(dataset, candidates, seed=callers), callers, candidates)
            rows.append(row)
            print(row, flush=True)
    return rows


def _cell(address: str, bodies: Iterator[Body], callers: int, candidates: int) -> dict[str, Any]:
    asyncio.run(closed_loop(address, "/v1/score", bodies, callers=callers, calls=max(WARM_CALLS, callers)))
    began = time.perf_counter()
    samples = asyncio.run(closed_loop(address, "/v1/score", bodies, callers=callers, seconds=CELL_S))
    seconds = time.perf_counter() - began
    good = [sample for sample in samples if sample.status == 200]
    return {
        "candidates": candidates, "callers": callers, "calls": len(samples), "not_200": len(samples) - len(good),
        **{f"{name}_ms": value for name, value in quantiles_ms(good).items()},
        "pairs_per_s": round(candidates * len(good) / seconds, 1),
    }  # fmt: skip


def _one_caller(address: str, bare: Bare, candidates: int) -> dict[str, Any]:
    """The same calls through the endpoint and in the engine, in turns."""
    bodies = list(islice(score_bodies(bare.dataset, candidates, seed=99), BARE_CALLS))
    groups = bare.groups(bodies)
    over_http, alone, paused = [], [], []
    for _ in range(TURNS):
        samples = asyncio.run(closed_loop(address, "/v1/score", iter(bodies), callers=1, calls=len(bodies), keep=True))
        over_http += samples
        alone += bare.seconds(groups)
        paused += bare.seconds(groups, pause_s=PAUSE_S)
    median_ms = 1e3 * statistics.median(sample.seconds for sample in over_http)
    bare_ms, paused_ms = 1e3 * statistics.median(alone), 1e3 * statistics.median(paused)
    timings = [sample.answer["timings"] for sample in over_http if sample.answer]
    inside = {name: round(statistics.median(timing[name] for timing in timings), 3) for name in timings[0]}
    return {
        "candidates": candidates, "calls": len(over_http), "endpoint_ms": round(median_ms, 2),
        "engine_ms": round(bare_ms, 2), "overhead_ms": round(median_ms - bare_ms, 2),
        "engine_after_a_pause_ms": round(paused_ms, 2), "inside": inside,
    }  # fmt: skip


def _batching(address: str, bare: Bare, candidates: int) -> dict[str, Any]:
    """16 over 1, of the endpoint and of the engine."""
    bodies = list(islice(score_bodies(bare.dataset, candidates, seed=98), 4 * BARE_CALLS))
    groups = bare.groups(bodies)
    rates: dict[str, list[float]] = {name: [] for name in ("http_1", "http_16", "engine_1", "engine_16")}
    for _ in range(TURNS):
        for callers in (1, 16):
            began = time.perf_counter()
            asyncio.run(closed_loop(address, "/v1/score", iter(bodies), callers=callers, calls=len(bodies)))
            rates[f"http_{callers}"].append(candidates * len(bodies) / (time.perf_counter() - began))
            rates[f"engine_{callers}"].append(bare.pairs_per_s(groups, callers))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    gain, own = medians["http_16"] / medians["http_1"], medians["engine_16"] / medians["engine_1"]
    return {
        "candidates": candidates, **{f"{name}_pairs_per_s": round(value, 1) for name, value in medians.items()},
        "endpoint_gain": round(gain, 3), "engine_gain": round(own, 3), "ratio": round(gain / own, 3),
    }  # fmt: skip


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency and rate against callers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2))
    for place, candidates in enumerate(CANDIDATES, start=1):
        mine = [row for row in rows if row["candidates"] == candidates]
        axes = figure.add_subplot(1, len(CANDIDATES) + 1, place, xscale="log", yscale="log")
        callers = [row["callers"] for row in mine]
        for name, style in (("p50", "o-"), ("p95", "s--"), ("p99", "^:")):
            axes.plot(callers, [row[f"{name}_ms"] for row in mine], style, label=name, markersize=4)
        noun = "item" if candidates == 1 else "items"
        axes.set(title=f"{candidates} {noun} a call", xlabel="callers", ylabel="latency, ms" if place == 1 else None)
        axes.set_xticks(CALLERS, CALLERS)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    axes = figure.add_subplot(1, len(CANDIDATES) + 1, len(CANDIDATES) + 1, xscale="log")
    for candidates, style in zip(CANDIDATES, ("o-", "s--", "^:"), strict=True):
        mine = [row for row in rows if row["candidates"] == candidates]
        axes.plot(
            [row["callers"] for row in mine], [row["pairs_per_s"] for row in mine], style, markersize=4,
            label=f"{candidates} a call",
        )  # fmt: skip
    axes.set(title="pairs per second", xlabel="callers", ylim=(0, None))
    axes.set_xticks(CALLERS, CALLERS)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
