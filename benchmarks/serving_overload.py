"""The endpoint above its load: refusals, latency of what is accepted, and how soon it is well again.

    python -m benchmarks.serving_overload --out benchmarks/results/serving-overload.json --config FILE [--workspace DIR]

Its capacity is measured first, with as many callers as the engine needs; then ten times as many calls per second come
for a minute, whatever becomes of them; then a call every 50 ms until five in a row are as fast as before.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import aiohttp
import numpy as np

from benchmarks.endpoint import (
    Body,
    Sample,
    asked,
    call,
    closed_loop,
    endpoint,
    open_loop,
    quantiles_ms,
    score_bodies,
)
from optirag_core.data.dataset import Dataset
from optirag_core.inference.opening import open_artifacts

CANDIDATES = 200
CALLERS = 8
CAPACITY_S = 15.0
TIMES = 10
SECONDS = 60.0
MAX_CALLS = 32
IN_A_ROW = 5
SETTINGS = ["--actors.torch_threads", "1", "--serving.max_calls", str(MAX_CALLS)]


def main() -> None:
    job = asked(__doc__)
    dataset = Dataset.load(open_artifacts(job.settings, "dataset")["dataset"].path)
    bodies = list(islice(score_bodies(dataset, CANDIDATES), 500))
    with endpoint([*job.rest, *SETTINGS]) as (address, _):
        figures = asyncio.run(_measured(address, bodies))
    job.write("benchmarks.serving_overload", figures)


async def _measured(address: str, bodies: Sequence[Body]) -> dict[str, Any]:
    await closed_loop(address, "/v1/score", _endless(bodies), callers=CALLERS, calls=20)  # warm
    alone = await closed_loop(address, "/v1/score", _endless(bodies), callers=1, calls=50)
    began = time.perf_counter()
    busy = await closed_loop(address, "/v1/score", _endless(bodies), callers=CALLERS, seconds=CAPACITY_S)
    capacity = len(busy) / (time.perf_counter() - began)
    policies: Counter[str] = Counter()
    watcher = asyncio.create_task(_watch(address, bodies, policies))
    flood = await open_loop(address, "/v1/score", _endless(bodies), per_second=TIMES * capacity, seconds=SECONDS)
    ended = time.perf_counter()
    watcher.cancel()
    usual = 2 * statistics.median(sample.seconds for sample in alone)
    recovery = await _recovered(address, bodies, usual)
    accepted = [sample for sample in flood if sample.status == 200]
    refused = [sample for sample in flood if sample.status in (429, 503)]
    queue_bound = 2 * MAX_CALLS  # in the scorer, and as many in the front
    bound = queue_bound / capacity * 1.5
    return {
        "candidates": CANDIDATES, "capacity_calls_per_s": round(capacity, 2), "alone_ms": quantiles_ms(alone),
        "offered_calls_per_s": round(TIMES * capacity, 1), "offered": len(flood), "seconds": SECONDS,
        "statuses": dict(Counter(str(sample.status) for sample in flood)),
        "refusals_without_retry_after": sum(sample.retry_after is None for sample in refused),
        "other_answers": len(flood) - len(accepted) - len(refused),
        "accepted_per_s": round(len(accepted) / SECONDS, 2),
        "accepted_ms": quantiles_ms(accepted), "refused_ms": quantiles_ms(refused),
        "queue_bound": queue_bound, "bound_ms": round(1e3 * bound, 1),
        "p99_within_bound": bool(_p99(accepted) <= bound),
        "policies_of_watched_calls": dict(policies),
        "recovery_s": round(recovery - ended, 2), "recovered": f"{IN_A_ROW} calls in a row within {1e3 * usual:.0f} ms",
    }  # fmt: skip


async def _watch(address: str, bodies: Sequence[Body], policies: Counter[str]) -> None:
    """By which policy accepted calls were answered meanwhile."""
    async with aiohttp.ClientSession(address) as session:
        for body in _endless(bodies):
            sample = await call(session, "/v1/score", body, keep=True)
            policies[sample.answer["policy"] if sample.status == 200 else "refused"] += 1
            await asyncio.sleep(0.25)


async def _recovered(address: str, bodies: Sequence[Body], usual_s: float) -> float:
    """When the first of so many usual calls in a row was sent."""
    in_a_row: list[Sample] = []
    async with aiohttp.ClientSession(address) as session:
        for body in _endless(bodies):
            sample = await call(session, "/v1/score", body)
            in_a_row = [*in_a_row, sample] if sample.status == 200 and sample.seconds <= usual_s else []
            if len(in_a_row) == IN_A_ROW:
                return in_a_row[0].sent
            await asyncio.sleep(0.05)
    raise AssertionError("endless")


def _endless(bodies: Sequence[Body]):
    while True:
        yield from bodies


def _p99(samples: Sequence[Sample]) -> float:
    return float(np.percentile([sample.seconds for sample in samples], 99))


if __name__ == "__main__":
    main()
