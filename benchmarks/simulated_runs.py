"""Simulated runs of up to 1,000 GPUs: how long a night takes by the length of its shards, its faults and its size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optirag_core.config.run import RunSettings
from optirag_core.planning.measured import RECEIPTS_PER_S, SHARD_OVERHEAD_S, SHARD_SPREAD
from optirag_core.planning.sharding import attempts_needed, best_shard_s, replicate
from optirag_core.planning.simulation import Cluster, Shards

COLOURS, MARKERS = ("#5f6b7a", "#1d5b99", "#c2703d"), "os^"  # grey, blue, rust: apart for colour-blind readers
INK, GRID = "#1f2933", "#dde2e8"
PAIRS_PER_SCORER_S = 204.1
"""Of Vicuna-7B on an A100, as `ray_jobs.plan` has it: turns seconds of a shard into pairs."""


@dataclass(frozen=True)
class Sweep:
    """What is simulated."""

    shard_s: Mapping[int, Sequence[float]]  # number of scorers -> seconds of a shard
    hours: float  # of scoring, were all scorers always there and alike
    num_shards: int  # of all runs of one kind, of which there are
    num_runs: tuple[int, int]  # at least and at most


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
        for number, lengths in sweep.shard_s.items():
            cluster = replace(night, num_scorers=number)
            best = _rule(cluster, sweep.hours)
            for length in sorted({*lengths, best}):
                row = _row(name, cluster, sweep, length)
                del row["finishes_s"]
                rows.append(row | {"is_the_rule": length == best})
    return {"sweep": asdict(sweep), **_told(), "rows": rows}


def distributed(sweep: Sweep) -> dict[str, Any]:
    """When runs end: with shards that stay with their scorer, as Ray's do, and with shards that move."""
    rows = [
        _row(name, replace(night, num_scorers=number, retries_move=moves), sweep, length) | {"retries_move": moves}
        for name, night in NIGHTS.items()
        for number, lengths in sweep.shard_s.items()
        for length in lengths
        for moves in (False, True)
        if night.losses_per_node_hour or not moves
    ]
    return {"sweep": asdict(sweep), **_told(), "rows": rows}


def _told() -> dict[str, Any]:
    return {
        "nights": {name: asdict(night) for name, night in NIGHTS.items()},
        "driver_s": 1 / RECEIPTS_PER_S.value, "overhead_s": SHARD_OVERHEAD_S.value, "spread": SHARD_SPREAD.value,
    }  # fmt: skip


def _rule(cluster: Cluster, hours: float) -> float:
    work_s = hours * 3600 * cluster.num_scorers
    best = best_shard_s(cluster, work_s=work_s, overhead_s=SHARD_OVERHEAD_S.value, driver_s=1 / RECEIPTS_PER_S.value)
    return round(best, 1)


def _row(name: str, cluster: Cluster, sweep: Sweep, length: float) -> dict[str, Any]:
    number = math.ceil(sweep.hours * 3600 * cluster.num_scorers / length)
    shards = Shards(number, length + SHARD_OVERHEAD_S.value, SHARD_SPREAD.value, 1 / RECEIPTS_PER_S.value)
    least, most = sweep.num_runs
    found = asdict(replicate(cluster, shards, max(least, min(most, sweep.num_shards // number))))
    begun = found.pop("attempts")
    row = {
        "night": name, "scorers": cluster.num_scorers, "shard_s": length,
        "pairs_per_shard": round(length * PAIRS_PER_SCORER_S), "shards": number, "runs": len(begun), **found,
        "most_attempts": max(begun), "runs_ended_by_a_shard": sum(most > RunSettings().max_attempts for most in begun),
        "attempts_needed": attempts_needed(cluster, shard_s=length, num_shards=number),
    }  # fmt: skip
    print({key: value for key, value in row.items() if key != "finishes_s"}, flush=True)
    return row


def plot_sweep(result: dict[str, Any], path: Path) -> None:
    """The median night and the span to its 95th percentile, by the length of a shard, for the largest cluster."""
    from matplotlib.figure import Figure

    sweep, rows = result["sweep"], result["rows"]
    numbers = sorted({row["scorers"] for row in rows})
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    for axes, number in zip(panels, numbers, strict=True):
        for name, colour, marker in zip(NIGHTS, COLOURS, MARKERS, strict=True):
            mine = [row for row in rows if (row["night"], row["scorers"]) == (name, number)]
            lengths = [row["shard_s"] for row in mine]
            medians, tails = ([row[key] / 3600 for row in mine] for key in ("p50_s", "p95_s"))
            axes.fill_between(lengths, medians, tails, color=colour, alpha=0.25, linewidth=0)
            axes.plot(lengths, medians, f"{marker}-", color=colour, markersize=4, label=name)
            [rule] = [row for row in mine if row["is_the_rule"]]
            axes.plot(rule["shard_s"], rule["p50_s"] / 3600, marker, color=colour, markersize=11, fillstyle="none")
        axes.axhline(sweep["hours"], color=INK, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="seconds of a shard on a scorer", title=f"{number:,} GPUs")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(color=GRID)
    panels[0].set(ylabel="hours until the commit", ylim=(sweep["hours"] * 0.97, sweep["hours"] * 1.4))
    panels[0].legend(frameon=False, loc="upper left", fontsize=8.5)
    figure.savefig(path, dpi=150)


def plot_distribution(result: dict[str, Any], path: Path) -> None:
    """The share of runs that have ended, by the time: solid where shards stay with their scorer, dashed where not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(NIGHTS, COLOURS, strict=True))
    for row in result["rows"]:
        hours = [seconds / 3600 for seconds in row["finishes_s"]]
        shares = [(place + 1) / len(hours) for place in range(len(hours))]
        style, note = ("--", ", shards move") if row["retries_move"] else ("-", "")
        axes.step(hours, shares, style, where="post", color=colours[row["night"]], label=row["night"] + note)
    axes.axvline(result["sweep"]["hours"], color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="hours until the commit", ylabel="share of runs that have ended", ylim=(0, 1.02))
    axes.grid(color=GRID)
    figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=8.5)
    figure.savefig(path, dpi=150)
