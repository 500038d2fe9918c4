"""How large shards should be and how often one may be begun, for a number of scorers and the faults that they have.

Shards of t seconds make a run of T seconds longer by

    T o / t           what each shard costs beside its pairs, o seconds of its scorer
    T r t / 2         halves of shards that are lost with their nodes, r losses per second
    t (f (k - 1) + 1/2)   the end: the last scorers at work are those k times slower with f shards in hand

so t* = sqrt(T o / (T r / 2 + f (k - 1) + 1/2)) costs least; and the driver, which takes d seconds for each of the
receipts that N scorers send, has twice the time it needs from t = 2 N d on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from optirag_core.planning.simulation import HOUR_S, Cluster, Outcome, Shards, simulate

SHORTEST_S, LONGEST_S = 10.0, 300.0
"""A shard is at least this long, as Ray takes its time for each, and at most, as a kill costs half of one."""
DRIVER_SHARE = 0.5
"""Of the driver's time that receipts may take: beside them it watches, logs and hands out."""


@dataclass(frozen=True)
class Distribution:
    """Figures of many runs that differ by their seeds alone."""

    finishes_s: Sequence[float]  # in order
    p50_s: float
    p95_s: float
    p99_s: float
    lost_share: float  # mean of the runs
    busy_share: float  # of the scorers' time until the end, for attempts that counted; mean
    attempts: Sequence[int]  # the most of any shard, of each run

    @classmethod
    def of(cls, cluster: Cluster, outcomes: Sequence[Outcome]) -> Self:
        finishes = sorted(outcome.finish_s for outcome in outcomes)
        p50, p95, p99 = np.percentile(finishes, (50, 95, 99)).tolist()
        return cls(
            finishes, p50, p95, p99,
            lost_share=float(np.mean([outcome.lost_share for outcome in outcomes])),
            busy_share=float(np.mean([each.scored_s / (each.finish_s * cluster.num_scorers) for each in outcomes])),
            attempts=[max(outcome.attempts) for outcome in outcomes],
        )  # fmt: skip


def replicate(cluster: Cluster, shards: Shards, num_runs: int, *, seed: int = 0) -> Distribution:
    """Simulate runs of seeds `seed`, `seed` + 1, ...

    Raises:
        ConfigError: simpy is not installed.
    """
    return Distribution.of(cluster, [simulate(cluster, shards, seed=seed + number) for number in range(num_runs)])


def best_shard_s(cluster: Cluster, *, work_s: float, overhead_s: float, driver_s: float) -> float:
    """Seconds of a shard that end a run soonest, by the formula above, within what a shard should be.

    The driver's bound wins over `LONGEST_S`: a driver that cannot keep up costs every scorer its time.

    Args:
        work_s: scorer seconds of all pairs.
        overhead_s: of a scorer, per shard, beside its pairs.
        driver_s: of the driver, per receipt.
    """
    run_s = work_s / cluster.num_scorers
    slower = cluster.slow_factor - 1.0 if cluster.slow_share else 0.0
    losses_per_s = cluster.losses_per_node_hour / HOUR_S
    grows = run_s * losses_per_s / 2 + cluster.in_flight * slower + 0.5
    best = math.sqrt(run_s * overhead_s / grows)
    return max(min(max(best, SHORTEST_S), LONGEST_S), cluster.num_scorers * driver_s / DRIVER_SHARE)


def attempts_needed(cluster: Cluster, *, shard_s: float, num_shards: float, failing_runs: float = 1e-3) -> int:
    """How often a shard may be begun so that lost nodes end at most this share of the runs.

    An attempt is lost with probability p = 1 - exp(-r t); that some shard loses a attempts in a row, S p^a at most.
    """
    lost = -math.expm1(-cluster.losses_per_node_hour / HOUR_S * shard_s)
    if not lost:
        return 1
    return max(1, math.ceil(math.log(failing_runs / num_shards) / math.log(lost)))
