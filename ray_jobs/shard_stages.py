"""The two stages of scoring: prompts are built on CPUs while the scorers score.

BuildPrompts   shard -> PROMPTS    histories, similar users, token pieces
ScorePrompts   PROMPTS -> receipt  one `Scorer.score` call, one attempt written
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from ray.actor import ActorHandle

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.inference.answers import answer, model_version
from optirag_core.inference.opening import Pin, open_artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.runs.attempts import Receipt, read_receipt, write_attempt
from optirag_core.runs.run import Run
from optirag_core.runs.totals import Totals, counted
from optirag_core.storage.base import open_storage
from ray_jobs.run_board import noted
from ray_jobs.run_meters import ScoringMeters
from ray_jobs.shard_stream import receipt_row, shard_row, shard_table

log = logging.getLogger(__name__)


class BuildPrompts:
    """A shard's number -> PROMPTS, one row per request."""

    def __init__(self, settings: dict[str, Any], pins: Mapping[str, Pin], run: str, board: ActorHandle) -> None:
        loaded = settings_from(settings)
        artifacts = open_artifacts(loaded, *pins, pins=pins)
        self._assembler, _ = open_assembler(loaded, artifacts, load_tokenizer(artifacts["llm"].path))
        self._run = open_run(loaded, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._board = board

    def __call__(self, unit: pa.Table) -> pa.Table:
        [number] = unit["shard"].to_pylist()
        with noted(self._board, "build", number), tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
            requests = self._run.requests(self._shards[number], Path(scratch))
            return shard_row(number, assembled_prompts(self._assembler, requests))


class ScorePrompts:
    """PROMPTS of a shard -> its receipt; the shard's scores and rejects are written by then."""

    def __init__(
        self, settings: dict[str, Any], pins: Mapping[str, Pin], run: str, run_id: str, board: ActorHandle
    ) -> None:
        loaded = settings_from(settings)
        torch.set_num_threads(loaded.actors.torch_threads)
        if not loaded.actors.num_gpus_per_scorer:
            keep_freed_memory()
        artifacts = open_artifacts(loaded, *pins, pins=pins)
        self._scorer = open_scorer(loaded, artifacts, device="cuda" if loaded.actors.num_gpus_per_scorer else "cpu")
        self._names = {"run_id": run_id, "model_version": model_version(artifacts)}
        self._run = open_run(loaded, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._board = board
        self._meters = ScoringMeters(run, loaded.exit_heads.layers)

    def __call__(self, row: pa.Table) -> pa.Table:
        number, prompts = shard_table(row)
        with noted(self._board, "score", number) as figures:
            started = time.perf_counter()
            # A retry after the receipt was written, or another driver's work: nothing is left to do.
            receipt = read_receipt(self._run.storage, self._run.folder, number)
            try:
                receipt = receipt or self._finish(number, prompts)
            except torch.AcceleratorError:  # the process's CUDA context is dead: a retry in it would fail as well
                log.exception("shard %d: this process ends, another one takes the shard", number)
                os._exit(1)
            figures |= event_figures(receipt) | {"seconds": round(time.perf_counter() - started, 3)}
        return receipt_row(receipt)

    def _finish(self, number: int, prompts: pa.Table) -> Receipt:
        started = time.perf_counter()
        scored = self._scorer.score(groups_of(prompts), watch=self._meters.waiting)
        answers, figures = answer(prompts, scored.scores, **self._names), scored.figures
        counts = counted(
            answers.scores, answers.rejects,
            scorer_pairs=figures.pairs, scorer_seconds=figures.seconds,
            useful_gflop=figures.cost.flops / 1e9, forced_exits=figures.forced,
            dropped_entries=answers.dropped_entries, dropped_users=answers.dropped_users,
        )  # fmt: skip
        shard = self._shards[number]
        receipt = write_attempt(self._run.storage, self._run.folder, shard, answers.scores, answers.rejects, counts)
        self._meters.add(counts, time.perf_counter() - started)
        return receipt


def event_figures(receipt: Receipt) -> dict[str, Any]:
    """What the event of a finished shard says of it."""
    shard = Totals.of([receipt])
    return {
        "pairs": shard.pairs, "scored": shard.scored, "rejected": shard.rejected, "rejects": dict(shard.rejects),
        "mean_exit_layer": round(shard.mean_exit_layer, 4),
    }  # fmt: skip


def open_run(settings: Settings, name: str) -> Run:
    """A run of the settings' workspace."""
    return Run(open_storage(settings.workspace, settings.storage), name)
