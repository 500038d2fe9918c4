"""Simulated runs of up to 1,000 GPUs: how long a night takes by the length of its shards, its faults and its size."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optirag_core.planning.measured import RECEIPTS_PER_S, SHARD_OVERHEAD_S, SHARD_SPREAD
from optirag_core.planning.sharding import attempts_needed, best_shard_s, replicate
from optirag_core.planning.simulation import Cluster, Shards

BLUE, RUST, GREEN, INK, GRID = "#1d5b99", "#c2703d", "#3d8b6e", "#1f2933", "#dde2e8"
PAIRS_PER_SCORER_S = 204.1
"""Of Vicuna-7B on an A100, as `ray_jobs.plan` has it: turns seconds of a shard into pairs."""


@dataclass(frozen=True)
class Sweep:
    """What is simulated."""

    scorers: Sequence[int]
    hours: float  # of scoring, were all scorers always there and alike
    shard_s: Sequence[float]
    num_runs: int


NIGHTS = {
    "machines of one's own": Cluster(1, 8, start_up_s=300.0),
    "spot, lost every 20 hours": Cluster(
        1, 8, start_up_s=300.0, losses_per_node_hour=0.05, return_s=120.0, slow_share=0.02, slow_factor=1.5
    ),
    "spot, lost every 2 hours": Cluster(
        1, 8, start_up_s=300.0, losses_per_node_hour=0.5, return_s=120.0, slow_share=0.02, slow_factor=1.5
    ),
}
"""Nodes of 8 GPUs."""


def swept(sweep: Sweep) -> dict[str, Any]:
    """Every kind of night, number of scorers and length of shards; and the rule's choice for each."""
    rows = []
    for name, night in NIGHTS.items():
        for number in sweep.scorers:
            cluster = replace(night, num_scorers=number)
            best = _rule(cluster, sweep.hours)
            rows += [_row(name, cluster, sweep, length, best) for length in sorted({*sweep.shard_s, best})]
    return {
        "sweep": asdict(sweep), "nights": {name: asdict(night) for name, night in NIGHTS.items()},
        "driver_s": 1 / RECEIPTS_PER_S.value, "overhead_s": SHARD_OVERHEAD_S.value, "spread": SHARD_SPREAD.value,
        "rows": rows,
    }  # fmt: skip


def retries(sweep: Sweep, number: int) -> list[dict[str, Any]]:
    """Shards that stay with their scorer against shards that move, and how often one was begun at most."""
    rows = []
    for name, night in NIGHTS.items():
        for moves in (False, True):
            cluster = replace(night, num_scorers=number, retries_move=moves)
            best = _rule(cluster, sweep.hours)
            rows.append(_row(name, cluster, sweep, best, best) | {"retries_move": moves})
    return rows


def _rule(cluster: Cluster, hours: float) -> float:
    work_s = hours * 3600 * cluster.num_scorers
    best = best_shard_s(cluster, work_s=work_s, overhead_s=SHARD_OVERHEAD_S.value, driver_s=1 / RECEIPTS_PER_S.value)
    return round(best, 1)


def _row(name: str, cluster: Cluster, sweep: Sweep, length: float, best: float) -> dict[str, Any]:
    number = math.ceil(sweep.hours * 3600 * cluster.num_scorers / length)
    shards = Shards(number, length + SHARD_OVERHEAD_S.value, SHARD_SPREAD.value, 1 / RECEIPTS_PER_S.value)
    found = replicate(cluster, shards, sweep.num_runs)
    row = {
        "night": name, "scorers": cluster.num_scorers, "shard_s": length, "is_the_rule": length == best,
        "pairs_per_shard": round(length * PAIRS_PER_SCORER_S), "shards": number, **asdict(found),
        "attempts_needed": attempts_needed(cluster, shard_s=length, num_shards=number),
        "runs_beyond_3_attempts": sum(most > 3 for most in found.attempts),
    }  # fmt: skip
    print({key: value for key, value in row.items() if key != "attempts"}, flush=True)
    return row


def plot_sweep(result: dict[str, Any], path: Path) -> None:
    """The median night and the span to its 95th percentile, by the length of a shard, for the largest cluster."""
    from matplotlib.figure import Figure

    sweep, rows = result["sweep"], result["rows"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(sweep["scorers"]), sharey=True, squeeze=False)[0]
    for axes, number in zip(panels, sweep["scorers"], strict=True):
        for (name, colour), marker in zip(zip(NIGHTS, (BLUE, RUST, GREEN), strict=True), "os^", strict=True):
            mine = [row for row in rows if (row["night"], row["scorers"]) == (name, number)]
            lengths = [row["shard_s"] for row in mine]
            medians, tails = ([row[key] / 3600 for row in mine] for key in ("p50_s", "p95_s"))
            axes.fill_between(lengths, medians, tails, color=colour, alpha=0.25, linewidth=0)
            axes.plot(lengths, medians, f"{marker}-", color=colour, markersize=4, label=name)
            [rule] = [row for row in mine if row["is_the_rule"]]
            axes.plot(rule["shard_s"], rule["p50_s"] / 3600, marker, color=colour, markersize=11, fillstyle="none")
        axes.axhline(sweep["hours"], color=INK, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="seconds of a shard on a scorer", title=f"{number:,} GPUs")
        axes.grid(color=GRID)
    panels[0].set(ylabel="hours until the commit", ylim=(sweep["hours"] * 0.97, sweep["hours"] * 1.4))
    panels[0].legend(frameon=False, loc="upper left", fontsize=8.5)
    figure.savefig(path, dpi=150)
