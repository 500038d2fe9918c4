"""Committed runs with given scores, in a workspace of a small data set."""

import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.artifacts import LATEST, Artifact, Workspace
from optirag_core.config.run import StorageSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import INTERACTIONS, REJECTS, REQUESTS, SCORES
from optirag_core.runs.attempts import write_attempt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import plan_shards
from optirag_core.runs.run import Run
from optirag_core.runs.totals import counted
from optirag_core.runs.work import begin
from optirag_core.storage.base import open_storage

Scored = Mapping[tuple[str, str], tuple[float, int]]
"""(user, item) -> score and exit layer; a negative score is a reject."""


def save_dataset(uri: str, test_rows: list[tuple[str, str, int]], version: str = "d1") -> Artifact:
    """A data set whose test split has these (user, item, label) rows, behind three training rows of each user."""
    users = sorted({user for user, _, _ in test_rows})
    rows = [(user, f"known{number}", 1, number, "train") for user in users for number in range(3)]
    rows += [(user, item, label, 3, "test") for user, item, label in test_rows]
    names = ("user_id", "item_id", "label", "position", "split")
    interactions = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) | {"rating": 5.0 * row[2]} for row in sorted(rows)], schema=INTERACTIONS
    )
    items = sorted({row[1] for row in rows})
    dataset = Dataset(interactions, pa.table({"user_id": users}), pa.table({"item_id": items, "title": items}), {})
    with tempfile.TemporaryDirectory() as folder:
        dataset.save(Path(folder))
        return Workspace(uri).save("dataset", version, Path(folder), config={}, parents={}, metrics={})


def commit_run(
    uri: str, name: str, scored: Scored, *, dataset: Artifact | None = None, split: str = "test",
    check: Callable[[str], None] | None = None, pointer: str = LATEST,
) -> dict[str, Any]:  # fmt: skip
    """Take a run to its commit; its id depends on its name and on nothing else."""
    storage, by_user = open_storage(uri, StorageSettings()), {}
    for user, item in scored:
        by_user.setdefault(user, []).append(item)
    requests = pa.Table.from_pylist(
        [{"user_id": u, "item_ids": items} for u, items in by_user.items()], schema=REQUESTS
    )
    run = Run(storage, name)
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_shards([requests], 4, Path(scratch))
        identity = RunIdentity.of({"name": name, "requests": {"split": split}})
        with begin(run, identity, plan, Path(scratch), lease_s=0.2) as work:
            for shard in work.left:
                users = run.requests(shard, Path(scratch))["user_id"].to_pylist()
                tables = _tables({key: value for key, value in scored.items() if key[0] in users})
                counts = counted(*tables, scorer_pairs=len(tables[0]), scorer_seconds=0.1)
                work.add(write_attempt(storage, run.folder, shard, *tables, counts))
            parents = {"dataset": dataset.digest} if dataset else {}
            return work.commit(parents=parents, max_reject_share=1.0, check=check, pointer=pointer)


def _tables(scored: Scored) -> tuple[pa.Table, pa.Table]:
    given = {"num_similar_users": 0, "cold_start": False, "run_id": "r", "model_version": "m"}
    given["scored_at"] = datetime(2026, 1, 1, tzinfo=UTC)
    scores = [
        {"user_id": user, "item_id": item, "score": score, "exit_layer": layer, **given}
        for (user, item), (score, layer) in scored.items() if score >= 0
    ]  # fmt: skip
    rejects = [
        {"user_id": user, "item_id": item, "error_code": "unknown_item", "error": "not there"}
        for (user, item), (score, _) in scored.items() if score < 0
    ]  # fmt: skip
    return pa.Table.from_pylist(scores, schema=SCORES), pa.Table.from_pylist(rejects, schema=REJECTS)
