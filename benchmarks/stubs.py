"""Stages of the batch job without an LLM: everything around the scores is real, the scores are a nap.

StubBuild   shard -> user_id, item_ids, prefix   reads the shard, makes prompts of a fixed length
StubScore   these -> receipt                     sleeps a fixed time per pair, writes an attempt
"""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from ray.actor import ActorHandle

from optirag_core.config.run import StorageSettings
from optirag_core.data.schema import REJECTS, SCORES
from optirag_core.runs.attempts import Receipt, read_receipt, write_attempt
from optirag_core.runs.plan import asked_pairs
from optirag_core.runs.run import Run
from optirag_core.runs.totals import counted
from optirag_core.storage.base import open_storage
from ray_jobs.run_board import noted
from ray_jobs.shard_stream import receipt_row, shard_row, shard_table


class StubBuild:
    """In the place of `BuildPrompts`: the shard's requests with `prompt_tokens` zeros each, as large as prompts are."""

    def __init__(self, workspace: str, run: str, prompt_tokens: int, board: ActorHandle) -> None:
        self._run = stub_run(workspace, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._prompt_tokens = prompt_tokens
        self._board = board

    def __call__(self, unit: pa.Table) -> pa.Table:
        [number] = unit["shard"].to_pylist()
        with noted(self._board, "build", number), tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
            requests = self._run.requests(self._shards[number], Path(scratch))
        rows, tokens = len(requests), self._prompt_tokens
        offsets = np.arange(rows + 1, dtype=np.int32) * tokens
        table = pa.table(
            {
                "user_id": requests["user_id"],
                "item_ids": requests["item_ids"],
                "prefix": pa.ListArray.from_arrays(offsets, np.zeros(rows * tokens, np.int32)),
            }
        )
        return shard_row(number, table)


class StubScore:
    """In the place of `ScorePrompts`: score 0.5 for every pair after `seconds_per_pair` of sleep each."""

    def __init__(self, workspace: str, run: str, seconds_per_pair: float, board: ActorHandle) -> None:
        self._run = stub_run(workspace, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._seconds_per_pair = seconds_per_pair
        self._board = board

    def __call__(self, row: pa.Table) -> pa.Table:
        number, prompts = shard_table(row)
        with noted(self._board, "score", number):
            receipt = read_receipt(self._run.storage, self._run.folder, number)
            return receipt_row(receipt or self._finish(number, prompts))

    def _finish(self, number: int, prompts: pa.Table) -> Receipt:
        users, items = asked_pairs(prompts)
        seconds = self._seconds_per_pair * len(users)
        time.sleep(seconds)
        same = {
            "score": 0.5, "exit_layer": 1, "num_similar_users": 0, "cold_start": False, "run_id": self._run.name,
            "model_version": "stub", "scored_at": datetime.now(UTC),
        }  # fmt: skip
        columns = {
            name: pa.repeat(pa.scalar(value, SCORES.field(name).type), len(users)) for name, value in same.items()
        }
        scores, rejects = pa.table({"user_id": users, "item_id": items, **columns}), REJECTS.empty_table()
        counts = counted(scores, rejects, scorer_pairs=len(users), scorer_seconds=seconds)
        return write_attempt(self._run.storage, self._run.folder, self._shards[number], scores, rejects, counts)


def stub_run(workspace: str, name: str) -> Run:
    """A run of a workspace."""
    return Run(open_storage(workspace, StorageSettings()), name)
