"""What `python -m ray_jobs.plan` prints: GPUs, time and cost of a run, what else it needs, what breaks first."""

from collections.abc import Iterator, Sequence

from optirag_core.planning import measured
from optirag_core.planning.accelerators import GIB, HOUR_S
from optirag_core.planning.capacity import Capacity
from optirag_core.planning.limits import Limit, limits
from optirag_core.planning.load import REQUEST_S, REQUESTS_PER_SHARD
from optirag_core.runs.run import THREADS

MEASURED_ON = "measured on 2 CPU cores,"
HEADINGS = ("", "what", "needs", "there is", "of it", "")


def capacity_lines(capacity: Capacity) -> list[str]:
    """Needs, what breaks first, how large shards should be, and every assumption."""
    load = capacity.load
    asked = f"{load.pairs:,.0f} pairs, {load.users:,.0f} users x {load.candidates:g} candidates"
    needs = list(_needs(capacity))
    width = max(len(name) for name, _ in needs)
    return [
        f"planned, not measured: {asked}; {capacity.num_parameters:,} parameters, {capacity.llm}",
        "",
        *(f"{name.ljust(width)}  {said}" for name, said in needs),
        "",
        "What breaks first (! where more is needed than there is):",
        *_table(limits(capacity)),
        "",
        "Assumed:",
        *(f"- {line}" for line in _assumptions(capacity)),
    ]


def _needs(capacity: Capacity) -> Iterator[tuple[str, str]]:
    load, scorers, plan = capacity.load, capacity.scorers, capacity.settings.plan
    yield "GPUs", f"{scorers.number:,} x {capacity.gpu.name} on {capacity.num_nodes:,} nodes of {plan.node.gpus}"
    yield (
        "hours",
        f"{scorers.hours:,.2f}: planning {_hours(scorers.planning_s)}, start {_hours(scorers.start_s)}, scoring "
        f"{_hours(scorers.scoring_s)}, commit {_hours(scorers.commit_s)}",
    )
    paid = f"{scorers.gpu_hours:,.0f} GPU hours"
    price = plan.price_per_gpu_hour
    yield "cost", f"{paid}" + (f" at {price:g}: {scorers.gpu_hours * price:,.0f}" if price else "; no price is given")
    yield "speed", f"{load.pairs_per_scorer_second:,.1f} pairs/s of a scorer, {capacity.pairs_per_s:,.0f} of all"
    yield (
        "shards",
        f"{load.num_shards:,} of {load.shard_users * load.candidates:,.0f} pairs, {load.shard_s:,.0f} s each on a "
        f"scorer; best {capacity.best_pairs_per_shard:,} pairs, {capacity.shard_s:,.0f} s",
    )
    yield "cores for prompts", f"{capacity.prompt_cores:,.0f}, {plan.node.cpus * capacity.num_nodes:,} on the GPU nodes"
    yield (
        "object store",
        f"{capacity.object_store_gib:,.1f} GiB of prompts, {capacity.object_store_gib / capacity.num_nodes:,.2f} GiB "
        "of a node",
    )
    start = capacity.node_gib * GIB * 8 / (plan.node.network_gbit_s * 1e9)
    yield (
        "network",
        f"{capacity.prompts_gbit_s:,.2f} Gbit/s of prompts into a node; {capacity.node_gib:,.0f} GiB of artifacts at "
        f"its start, {start:,.0f} s at its full rate",
    )
    yield from _storage(capacity)


def _storage(capacity: Capacity) -> Iterator[tuple[str, str]]:
    load = capacity.load
    requests, scores = (load.pairs * each.value / GIB for each in (measured.REQUEST_BYTES, measured.SCORE_BYTES))
    receipts = load.num_shards * measured.RECEIPT_BYTES.value / GIB
    yield (
        "storage",
        f"requests {requests:,.1f} GiB, once more as shards; scores {scores:,.1f} GiB; receipts {receipts:,.2f} GiB",
    )
    yield (
        "S3 requests",
        f"{load.s3_requests:,.0f}, {capacity.shards_per_s * REQUESTS_PER_SHARD:,.0f} a second; a driver that takes "
        f"over lists and reads receipts for {load.listing_s:,.0f} s",
    )
    yield "driver", f"{load.driver_gib:,.1f} GiB, {capacity.shards_per_s:,.1f} receipts a second"
    lookups = capacity.lookups
    index = f"index {lookups.index.gib:,.1f} GiB" if lookups.index else "index not measured"
    yield (
        "lookups of a node",
        f"histories {lookups.histories_gib:,.1f} GiB, vectors {lookups.vectors_gib:,.1f} GiB, {index}",
    )
    if lookups.index:
        search_ms = lookups.index.search_s * 1e3
        yield (
            "index",
            f"{capacity.settings.index.factory}: made in {_hours(lookups.index.build_s)}, a search takes a core "
            f"{search_ms:,.2f} ms",
        )
    yield (
        "retriever",
        f"{lookups.retriever_gib:,.0f} GiB and {_hours(lookups.epoch_s)} an epoch, one worker on two cores",
    )


def _table(made: Sequence[Limit]) -> list[str]:
    rows = [HEADINGS, *(_row(limit) for limit in made)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = (str.ljust, str.ljust, str.rjust, str.ljust, str.rjust, str.ljust)
    return [
        "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(limit: Limit) -> tuple[str, ...]:
    breaks = limit.ratio > 1.0
    return (
        "!" if breaks else "",
        limit.name,
        _figure(limit.needs),
        f"{_figure(limit.has)} {limit.unit}".rstrip(),
        f"{limit.ratio:,.0%}",
        limit.remedy if breaks else "",
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR_S:,.2f} h" if seconds >= 36 else f"{seconds:,.0f} s"


def _assumptions(capacity: Capacity) -> Iterator[str]:
    load, plan, node, settings = capacity.load, capacity.settings.plan, capacity.settings.plan.node, capacity.settings
    yield from capacity.counts.sources
    yield (
        f"prompts of {load.prefix_tokens:,.0f} tokens and {load.suffix_tokens:,.0f} of each candidate, "
        f"{load.user_flops:.3g} FLOPs of a user: {capacity.flops_share:.0%} of full depth's "
        f"({capacity.flops_share_source})"
    )
    peak = capacity.gpu.peak_flops[settings.engine.dtype] / 1e12
    yield (
        f"{capacity.gpu.name}: {peak:,.4g} TFLOP/s in {settings.engine.dtype} as published, {capacity.utilization:.0%} "
        "of it in scoring (plan.scoring_utilization): an assumption, no GPU was measured; engine-cpu-kept.json: 74 % "
        "of a GEMM on two cores"
    )
    yield (
        f"a node: {node.gpus} GPUs, {node.cpus} CPUs, {node.memory_gib:,.0f} GiB, {node.disk_gib:,.0f} GiB of disk, "
        f"{node.network_gbit_s:g} Gbit/s, {node.start_s:g} s to start, lost {node.losses_per_hour:g} times an hour and "
        f"back after {node.return_s:g} s, {node.slow_share:.0%} of them {node.slow_factor:g} times slower (plan.node.*)"
    )
    yield (
        f"{plan.interactions_per_user:g} interactions of a user (plan.interactions_per_user), vectors of width "
        f"{settings.retriever.embedding_dim}, a driver with {plan.driver_memory_gib:g} GiB (plan.driver_memory_gib)"
    )
    yield f"an S3 request takes {REQUEST_S * 1e3:g} ms, {THREADS} at a time"
    yield "GPUs are asked for when the planning is over, and paid for from then until the commit"
    yield "costs grow in proportion to users, pairs, shards and interactions beyond what was measured"
    yield from (f"{MEASURED_ON} {each.source}" for each in _rests_on(capacity))


def _rests_on(capacity: Capacity) -> list[measured.Measured]:
    index = capacity.lookups.index.rests_on if capacity.lookups.index else ()
    everything = [value for value in vars(measured).values() if isinstance(value, measured.Measured)]
    return [each for each in everything if each.file != "index-generated.json" or each in index]
