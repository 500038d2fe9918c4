"""Shards -> receipts on Ray Data: one shard is one row through a stage on CPUs and a stage with the scorers.

units    {shard: int}                 the driver, a few bytes each
build    {shard} -> {shard, table}    a pool of CPU actors: what the scorers need for the next shards
score    {shard, table} -> {receipt}  a pool of actors with a scorer each; they write the output

A row, because Ray may join or cut blocks of more than one: a shard would be scored in parts. The driver sees receipts.
"""

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from optirag_core.config.settings import Settings
from optirag_core.errors import RunStalled
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.plan import Shard
from ray_jobs.resources import check_actors
from ray_jobs.run_board import RunBoard, stalled_stage, told
from ray_jobs.run_events import Event
from ray_jobs.session import own_error

SHARDS = pa.schema([("shard", pa.int32()), ("table", pa.large_binary())])
RECEIPTS = pa.schema([("receipt", pa.binary())])


@dataclass(frozen=True)
class Stage:
    """A callable class, one instance per actor; `board=` is added to its arguments."""

    of: type
    arguments: Mapping[str, Any] = field(default_factory=dict)


def stream(
    shards: Sequence[Shard], build: Stage, score: Stage, settings: Settings,
    tell: Callable[[Sequence[Event]], None] | None = None,
) -> Generator[Receipt]:  # fmt: skip
    """Finish shards, in whatever order they end.

    Args:
        tell: as of `through_stages`.

    Raises:
        OptiragError: as `through_stages`.
    """
    units = [{"shard": shard.number} for shard in shards]
    for block in through_stages(units, build, score, settings, tell):
        for text in block["receipt"].to_pylist():
            yield Receipt.from_json(text)


def through_stages(
    units: Sequence[Mapping[str, Any]], build: Stage, score: Stage, settings: Settings,
    tell: Callable[[Sequence[Event]], None] | None = None,
) -> Generator[pa.Table]:  # fmt: skip
    """What the second stage returns for each unit, in whatever order they end.

    Args:
        tell: is given the events of the shards, in another thread, soon after they happen.

    Raises:
        ResourcesMissing: the cluster lacks what the actors ask for.
        RunStalled: no shard was finished for `run.stall_timeout_s`.
        ShardFailed: a shard ended its process again and again.
        OptiragError: whatever a stage raised.
    """
    actors = settings.actors
    check_actors(actors, settings.ray.wait_for_nodes_s)
    board = RunBoard.remote(settings.run.max_attempts, tells=bool(tell))  # type: ignore[attr-defined]  # Ray adds it
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows one for the pairs
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would warn that they are off
    context.raise_original_map_exception = True  # a wrapped one loses its cause on the way to the driver
    built = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
        build.of, fn_constructor_kwargs={**build.arguments, "board": board},
        compute=ActorPoolStrategy(size=actors.num_prompt_builders), num_cpus=actors.num_cpus_per_prompt_builder,
        batch_size=1, batch_format="pyarrow",
    )  # fmt: skip
    finished = built.map_batches(
        score.of, fn_constructor_kwargs={**score.arguments, "board": board},
        compute=ActorPoolStrategy(min_size=actors.num_scorers, max_size=actors.max_scorers or actors.num_scorers),
        num_cpus=actors.num_cpus_per_scorer, num_gpus=actors.num_gpus_per_scorer or None,
        accelerator_type=actors.accelerator_type, memory=_bytes(actors.memory_gib_per_scorer),
        batch_size=1, batch_format="pyarrow",
    )  # fmt: skip
    with told(board, tell):
        yield from _watched(finished, settings.run.stall_timeout_s, board)


def shard_row(number: int, table: pa.Table) -> pa.Table:
    """What a build stage returns."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.table(
        {"shard": [number], "table": pa.array([sink.getvalue().to_pybytes()], pa.large_binary())}, schema=SHARDS
    )


def shard_table(row: pa.Table) -> tuple[int, pa.Table]:
    """What a score stage is given: a shard's number, and its table without a copy."""
    [number] = row["shard"].to_pylist()
    return number, pa.ipc.open_stream(row["table"][0].as_buffer()).read_all()


def receipt_row(receipt: Receipt) -> pa.Table:
    """What a score stage returns."""
    return pa.table({"receipt": [receipt.to_json()]}, schema=RECEIPTS)


def _watched(receipts: ray.data.Dataset, stall_timeout_s: float, board: ray.actor.ActorHandle) -> Iterator[pa.Table]:
    """The blocks of a data set, each within its time."""
    arrived: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()

    def consume() -> None:
        try:
            for block in receipts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                arrived.put(block)
            arrived.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the driver's thread
            arrived.put(error)

    threading.Thread(target=consume, daemon=True, name="receipts").start()
    while True:
        try:
            block = arrived.get(timeout=stall_timeout_s)
        except queue.Empty:
            raise RunStalled(
                f"no shard was finished for {stall_timeout_s:g} s: {stalled_stage(board)}. Run the "
                "same command again, with a larger run.stall_timeout_s where a shard needs more time, or with fewer "
                "actors.num_scorers where a node is lost for good"
            ) from None
        if block is None:
            return
        if isinstance(block, BaseException):
            raise own_error(block) or block
        yield block


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * 2**30)
