"""The driver's own work on a run: plan, shards published, receipts read and kept, commit; and what a shard weighs.

Whatever scores is left out: attempts and receipts are written as scorers write them, or, where only their number
counts, as files of the same names.
"""

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.stub_job import MIB, MemoryPeak
from benchmarks.stubs import stub_run
from optirag_core.config.run import StorageSettings
from optirag_core.data.schema import REJECTS, REQUESTS, SCORES
from optirag_core.runs.attempts import Receipt, receipt_file, write_attempt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import Shard, ShardPlan, asked_pairs, key_digest, plan_shards
from optirag_core.runs.requests import grouped, open_requests
from optirag_core.runs.run import Run
from optirag_core.runs.totals import counted
from optirag_core.runs.work import begin

ITEMS = 300_000
USERS_PER_TABLE = 65_536
EXIT_LAYERS = [5, 10, 15, 20, 25, 30, 32]


@dataclass
class Timed:
    """Seconds of steps, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str):
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a fresh process, whose memory is then the call's own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measured_plan(users: int, candidates: int, pairs_per_shard: int) -> dict[str, Any]:
    """Requests files -> shards, as `ray_jobs.score` makes them."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
        file = Path(folder) / "requests" / "requests.parquet"
        apart(write_requests, file, users, candidates)
        return apart(_plan, file, Path(folder), pairs_per_shard) | {"users": users, "candidates": candidates}


def write_requests(file: Path, users: int, candidates: int) -> None:
    """Requests of users in order, with items drawn at random."""
    file.parent.mkdir(parents=True)
    schema = pa.schema([REQUESTS.field(name) for name in ("user_id", "item_ids")])
    items, chance = _ids("item-", 0, ITEMS, 7), np.random.default_rng(0)
    with pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        for start in range(0, users, USERS_PER_TABLE):
            number = min(USERS_PER_TABLE, users - start)
            offsets = pa.array(np.arange(number + 1) * candidates, pa.int32())
            asked = items.take(pa.array(chance.integers(0, ITEMS, number * candidates)))
            lists = pa.ListArray.from_arrays(offsets, asked)
            writer.write_table(pa.table([_ids("user-", start, number, 9), lists], schema=schema))


def _ids(prefix: str, start: int, number: int, digits: int) -> pa.Array:
    numbers = pc.cast(pa.array(np.arange(start, start + number)), pa.string())
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(numbers, digits, "0"), "")


def _plan(file: Path, scratch: Path, pairs_per_shard: int) -> dict[str, Any]:
    timed, began_s = Timed(), time.process_time()
    with MemoryPeak() as memory:
        with timed.step("read and verify"):
            files = open_requests(str(file), StorageSettings(), scratch)
        with timed.step("cut and write shards"):
            plan = plan_shards(grouped(files, scratch), pairs_per_shard, scratch / "shards")
        with timed.step("plan.json and digest"):
            text, _ = plan.to_json(), plan.digest
    shard_bytes = sum(path.stat().st_size for path in (scratch / "shards").iterdir())
    return {
        "pairs": plan.pairs,
        "pairs_per_shard": pairs_per_shard,
        "shards": len(plan.shards),
        "seconds": timed.seconds,
        "cpu_seconds": time.process_time() - began_s,
        "us_per_pair": sum(timed.seconds.values()) / plan.pairs * 1e6,
        "rss_before_mib": memory.before / MIB,
        "rss_peak_mib": memory.peak / MIB,
        "request_bytes_per_pair": file.stat().st_size / plan.pairs,
        "shard_bytes_per_pair": shard_bytes / plan.pairs,
        "plan_json_bytes_per_shard": len(text) / len(plan.shards),
        "digest": plan.digest,
    }


def measured_receipts(shards: int) -> dict[str, Any]:
    """A driver that publishes so many shards, and one that takes over when all are finished, on a local folder."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
        return apart(_receipts, shards, Path(folder))


def _receipts(number: int, folder: Path) -> dict[str, Any]:
    run, timed = stub_run(str(folder / "workspace"), "stub"), Timed()
    plan = ShardPlan(tuple(Shard(each, 200, 10_000, _hex(each), _hex(-each)) for each in range(number)))
    files = folder / "shards"
    files.mkdir()
    for shard in plan.shards:
        (files / Path(shard.file).name).write_bytes(b"")
    with MemoryPeak() as memory:
        with timed.step("publish"), begin(run, _identity(plan), plan, files, lease_s=60.0):
            pass
        _finish_all(run, plan)
        with timed.step("take over"):
            opened = begin(run, _identity(plan), plan, files, lease_s=60.0)
            work = opened.__enter__()
        with timed.step("keep receipts"):
            for receipt in run.receipts(plan).values():
                work.add(receipt)
        with timed.step("commit"):
            work.commit(parents={}, max_reject_share=0.0)
        opened.__exit__(None, None, None)
        with timed.step("read the manifest"):
            manifest = run.manifest()
    size = len(run.storage.read(f"{run.folder}/manifest.json"))
    return {
        "shards": number,
        "pairs": plan.pairs,
        "committed_pairs": manifest["metrics"]["scored"],
        "seconds": timed.seconds,
        "ms_per_shard": {name: seconds / number * 1e3 for name, seconds in timed.seconds.items()},
        "manifest_bytes_per_shard": size / number,
        "rss_before_mib": memory.before / MIB,
        "rss_peak_mib": memory.peak / MIB,
        "kib_per_shard": (memory.peak - memory.before) / number / 1024,
    }


def _identity(plan: ShardPlan) -> RunIdentity:
    return RunIdentity.of({"plan": plan.digest})


def _finish_all(run: Run, plan: ShardPlan) -> None:
    """The files that scorers leave, empty but for the receipts."""
    root = Path(run.uri)
    for folder in ("attempts", "receipts"):
        (root / folder).mkdir(parents=True)
    for shard in plan.shards:
        receipt = _receipt(shard)
        for path in receipt.files:
            (root / path).write_bytes(b"")
        (root / receipt_file(shard.number)).write_bytes(receipt.to_json())


def _receipt(shard: Shard) -> Receipt:
    files = {
        f"attempts/{shard.number:06}-{_hex(shard.number)[:12]}-{kind}.parquet": {
            "sha256": _hex(shard.number + 1), "size": 101_234, "rows": rows
        }
        for kind, rows in (("scores", shard.pairs), ("rejects", 0))
    }  # fmt: skip
    exits = {str(layer): shard.pairs // len(EXIT_LAYERS) for layer in EXIT_LAYERS}
    sums = {"scorer_pairs": shard.pairs, "scorer_seconds": 48.123456, "useful_gflop": 7_480_000.5, "forced_exits": 0}
    counts = {"rejects": {}, "exits": exits, "dropped_entries": 12, "dropped_users": 3, **sums}
    return Receipt(shard.number, shard.pairs, 0, shard.keys, files, counts)


def measured_sizes(users: int, candidates: int) -> dict[str, Any]:
    """Files of one shard, as scorers write them, with scores that are all unlike."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
        file = Path(folder) / "requests" / "requests.parquet"
        write_requests(file, users, candidates)
        table = pq.read_table(file)
        asked, items = asked_pairs(table)
        shard = Shard(0, users, len(asked), key_digest(asked, items), _hex(0))
        run = stub_run(folder, "stub")
        began = time.perf_counter()
        receipt = write_attempt(run.storage, run.folder, shard, *_scored(asked, items))
        seconds = time.perf_counter() - began
        scores, rejects = (
            next(entry["size"] for path, entry in receipt.files.items() if f"-{kind}." in path)
            for kind in ("scores", "rejects")
        )
        return {
            "pairs": shard.pairs,
            "request_bytes_per_pair": file.stat().st_size / shard.pairs,
            "score_bytes_per_pair": scores / shard.pairs,
            "reject_file_bytes": rejects,
            "receipt_bytes": len(receipt.to_json()),
            "write_seconds": seconds,
        }


def _scored(users: list[str], items: list[str]) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    chance = np.random.default_rng(1)
    number = len(users)
    columns = {
        "user_id": users, "item_id": items, "score": chance.random(number, np.float32),
        "exit_layer": chance.choice(EXIT_LAYERS, number).astype(np.int16), "num_similar_users": np.full(number, 4),
        "cold_start": np.zeros(number, bool), "run_id": [_hex(7)] * number,
        "model_version": ["llm/0123456789ab"] * number, "scored_at": [datetime.now(UTC)] * number,
    }  # fmt: skip
    scores, rejects = pa.table(columns).cast(SCORES), REJECTS.empty_table()
    return scores, rejects, dict(counted(scores, rejects, scorer_pairs=number, scorer_seconds=48.0))


def _hex(number: int) -> str:
    return hashlib.sha256(json.dumps(number).encode()).hexdigest()
