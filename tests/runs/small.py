"""A small run without Ray and without an LLM: the score of a pair is a hash of it."""

import tempfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.data.schema import REJECTS, REQUESTS, SCORES
from optirag_core.runs.attempts import Receipt, write_attempt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import Shard, ShardPlan, asked_pairs, plan_shards
from optirag_core.runs.run import Run, drive
from optirag_core.runs.totals import counted
from optirag_core.storage.base import Storage

PAIRS_PER_SHARD = 4
LEASE_S = 0.2
PARENTS = {"llm": "1" * 64}


def small_requests(num_users: int = 12) -> pa.Table:
    """Users with 1 to 3 candidates; item 5 is unknown."""
    rows = [{"user_id": f"u{n:03}", "item_ids": [str((n + k) % 7) for k in range(1 + n % 3)]} for n in range(num_users)]
    return pa.Table.from_pylist(rows, schema=REQUESTS)


def expected_scores(requests: pa.Table) -> dict[tuple[str, str], float]:
    users, items = asked_pairs(requests)
    return {(u, i): score_of(u, i) for u, i in zip(users, items, strict=True) if i != "5"}


def score_of(user: str, item: str) -> float:
    return zlib.crc32(f"{user}/{item}".encode()) / 2**32


def score_shard(run: Run, shard: Shard) -> Receipt:
    """What a scorer actor does."""
    with tempfile.TemporaryDirectory() as scratch:
        requests = run.requests(shard, Path(scratch))
    users, items = asked_pairs(requests)
    scores, rejects = [], []
    for user, item in zip(users, items, strict=True):
        if item == "5":
            rejects.append({"user_id": user, "item_id": item, "error_code": "unknown_item", "error": "five"})
        else:
            scores.append(
                {
                    "user_id": user, "item_id": item, "score": score_of(user, item), "exit_layer": 3,
                    "num_similar_users": 0, "cold_start": False, "run_id": "r", "model_version": "m",
                    "scored_at": datetime.now(UTC),
                }
            )  # fmt: skip
    tables = pa.Table.from_pylist(scores, schema=SCORES), pa.Table.from_pylist(rejects, schema=REJECTS)
    return write_attempt(run.storage, run.folder, shard, *tables, counted(*tables, scorer_seconds=0.1))


def run_small(
    storage: Storage,
    name: str,
    requests: pa.Table,
    *,
    execute: Callable[[Run], Callable[[Sequence[Shard]], Generator[Receipt]]] | None = None,
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Drive a run to its commit in this process."""
    run = Run(storage, name)
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_shards([requests], PAIRS_PER_SHARD, Path(scratch))
        return drive(
            run, identity(plan, **(changes or {})), plan, Path(scratch), (execute or in_order)(run),
            **{"parents": PARENTS, "lease_s": LEASE_S, "max_reject_share": 1.0, "report": report} | options,
        )  # fmt: skip


def identity(plan: ShardPlan, **changes: Any) -> RunIdentity:
    return RunIdentity.of({"exits": {"threshold": 0.01}, "plan": plan.digest, **changes})


def report(totals: Any) -> dict[str, bytes]:
    return {"run.json": str(totals.pairs).encode()}


def in_order(run: Run) -> Callable[[Sequence[Shard]], Generator[Receipt]]:
    return lambda shards: (score_shard(run, shard) for shard in shards)
