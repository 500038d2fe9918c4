"""A small run without Ray and without an LLM: the score of a pair is a hash of it."""

import json
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.data.schema import REJECTS, REQUESTS, SCORES
from optirag_core.runs.attempts import Receipt, write_attempt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import Shard, ShardPlan, asked_pairs, plan_shards
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.runs.totals import Totals, counted
from optirag_core.runs.work import Work, begin
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


def scores_of(storage: Storage, name: str | None = None) -> dict[tuple[str, str], float]:
    """What readers see of the newest run, or of a named one; fails where a pair is there twice."""
    table = read_scores(f"{storage.uri}/scores" + (f"/{name}" if name else ""))
    rows = [((row["user_id"], row["item_id"]), row["score"]) for row in table.to_pylist()]
    assert len(rows) == len(dict(rows))
    return dict(rows)


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
    counts = counted(*tables, scorer_pairs=len(scores), scorer_seconds=0.1)
    return write_attempt(run.storage, run.folder, shard, *tables, counts)


def in_order(run: Run, shards: Sequence[Shard]) -> Generator[Receipt]:
    return (score_shard(run, shard) for shard in shards)


def run_small(
    storage: Storage,
    name: str,
    requests: pa.Table,
    *,
    execute: Callable[[Run, Sequence[Shard]], Generator[Receipt]] = in_order,
    changes: Mapping[str, Any] | None = None,
    lease_s: float = LEASE_S,
    **options: Any,
) -> dict[str, Any]:
    """Take a run to its commit in this process.

    Args:
        execute: finishes shards.
        options: of the commit.
    """
    with (
        begun(storage, name, requests, changes=changes, lease_s=lease_s) as work,
        closing(execute(Run(storage, name), work.left)) as receipts,
    ):
        for receipt in receipts:
            work.add(receipt)
        return commit(work, **options)


@contextmanager
def begun(
    storage: Storage, name: str, requests: pa.Table, *, changes: Mapping[str, Any] | None = None,
    lease_s: float = LEASE_S,
) -> Iterator[Work]:  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_shards([requests], PAIRS_PER_SHARD, Path(scratch))
        with begin(Run(storage, name), identity(plan, **(changes or {})), plan, Path(scratch), lease_s=lease_s) as work:
            yield work


def commit(work: Work, **options: Any) -> dict[str, Any]:
    return work.commit(**{"pages": pages, "parents": PARENTS, "max_reject_share": 1.0} | options)


def identity(plan: ShardPlan, **changes: Any) -> RunIdentity:
    return RunIdentity.of({"exits": {"threshold": 0.01}, "plan": plan.digest, **changes})


def pages(totals: Totals, *, seconds: float, resumed: int) -> dict[str, bytes]:
    return {"run.json": json.dumps({"pairs": totals.pairs, "seconds": seconds, "resumed": resumed}).encode()}
