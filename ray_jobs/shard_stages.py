"""The two stages of scoring: prompts are built on CPUs while the scorers score.

BuildPrompts   shard -> PROMPTS    histories, similar users, token pieces
ScorePrompts   PROMPTS -> receipt  one `Scorer.score` call, one attempt written
"""

import logging
import math
import os
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from ray.actor import ActorHandle
from ray.util import metrics

from optirag_core.config import Settings, settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REJECTS, REQUESTS, SCORES
from optirag_core.engine.figures import CallFigures
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ArtifactMismatch
from optirag_core.prompting.assembly import requests_from
from optirag_core.prompting.template import PromptTemplate
from optirag_core.runs.attempts import Receipt, read_receipt, write_attempt
from optirag_core.runs.run import Run
from optirag_core.runs.totals import counted
from optirag_core.storage.base import open_storage
from ray_jobs.artifact_job import Inputs, open_inputs
from ray_jobs.prompt_stage import open_assembler
from ray_jobs.run_board import noted
from ray_jobs.shard_stream import receipt_row, shard_row, shard_table

log = logging.getLogger(__name__)
KINDS = ("dataset", "retriever", "llm", "exit_heads")
EXIT_POLICY = {"criterion", "window", "threshold", "group_stop", "frozen_prefix_after"}
TOKENS = pa.list_(pa.int32())
ORIGIN = [REQUESTS.field(name) for name in ("user_id", "as_of", "as_of_position")]
PROMPTS = pa.schema(
    [
        *ORIGIN,
        ("prefix", TOKENS),
        ("suffixes", pa.list_(TOKENS)),
        ("item_ids", pa.list_(pa.string())),  # of the suffixes
        ("rejects", pa.list_(pa.struct([REJECTS.field(name) for name in ("item_id", "error_code", "error")]))),
        ("num_similar_users", pa.int8()),
        ("cold_start", pa.bool_()),
    ]
)
SECONDS = [1, 3, 10, 30, 100, 300, 1000]
"""Bounds of the shard durations' histogram."""


class BuildPrompts:
    """A shard's number -> PROMPTS, one row per request."""

    def __init__(
        self, settings: dict[str, Any], versions: dict[str, str], digests: dict[str, str], run: str, board: ActorHandle
    ) -> None:
        loaded = settings_from(settings)
        inputs = _planned_inputs(loaded, versions, digests)
        _, tokenizer = load_llm(inputs["llm"].path)
        dataset = Dataset.load(inputs["dataset"].path)
        self._assembler, _ = open_assembler(loaded, dataset, inputs["retriever"], tokenizer)
        self._run = open_run(loaded, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._board = board

    def __call__(self, unit: pa.Table) -> pa.Table:
        [number] = unit["shard"].to_pylist()
        with noted(self._board, "build", number), tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
            return shard_row(number, self._prompts(self._run.requests(self._shards[number], Path(scratch))))

    def _prompts(self, requests: pa.Table) -> pa.Table:
        rows = []
        for origin, assembled in zip(
            requests.select([field.name for field in ORIGIN]).to_pylist(),
            self._assembler.assemble(requests_from(requests)),
            strict=True,
        ):
            prompt = assembled.prompt
            rows.append(
                origin
                | {
                    "prefix": prompt.group.prefix if prompt else [],
                    "suffixes": prompt.group.suffixes if prompt else [],
                    "item_ids": assembled.candidates,
                    "rejects": [vars(reject) for reject in assembled.rejects],
                    "num_similar_users": prompt.num_similar_users if prompt else 0,
                    "cold_start": assembled.cold_start,
                }
            )
        return pa.Table.from_pylist(rows, schema=PROMPTS)


class ScorePrompts:
    """PROMPTS of a shard -> its receipt; the shard's scores and rejects are written by then."""

    def __init__(
        self, settings: dict[str, Any], versions: dict[str, str], digests: dict[str, str], run: str, run_id: str,
        board: ActorHandle,
    ) -> None:  # fmt: skip
        loaded = settings_from(settings)
        torch.set_num_threads(loaded.ray.torch_threads)
        if not loaded.scoring.num_gpus_per_actor:
            keep_freed_memory()
        inputs = _planned_inputs(loaded, versions, digests)
        self._scorer = open_scorer(loaded, inputs)
        self._constants = {
            "run_id": run_id, "model_version": f"{inputs['llm'].version}+{inputs['exit_heads'].version}",
        }  # fmt: skip
        self._run = open_run(loaded, run)
        self._shards = {shard.number: shard for shard in self._run.plan().shards}
        self._board = board
        self._meters = Meters([*loaded.exits.layers])

    def __call__(self, row: pa.Table) -> pa.Table:
        number, prompts = shard_table(row)
        with noted(self._board, "score", number):
            # A retry after the receipt was written, or another driver's work: nothing is left to do.
            receipt = read_receipt(self._run.storage, self._run.folder, number)
            try:
                receipt = receipt or self._finish(number, prompts)
            except torch.AcceleratorError:  # the process's CUDA context is dead: a retry in it would fail as well
                log.exception("shard %d: this process ends, another one takes the shard", number)
                os._exit(1)
        return receipt_row(receipt)

    def _finish(self, number: int, prompts: pa.Table) -> Receipt:
        started = time.perf_counter()
        scores, rejects, figures = self._results(prompts.to_pylist())
        sums = {
            "scorer_seconds": figures.seconds,
            "useful_gflop": figures.cost.flops / 1e9,
            "forced_exits": figures.forced,
        }
        counts = counted(scores, rejects, **sums)
        receipt = write_attempt(self._run.storage, self._run.folder, self._shards[number], scores, rejects, counts)
        self._meters.add(counts, time.perf_counter() - started)
        return receipt

    def _results(self, rows: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table, CallFigures]:
        """SCORES and REJECTS of a shard, and what scoring it took."""
        scored = self._scorer.score([UserGroup(row["prefix"], row["suffixes"]) for row in rows])
        scores, rejects, scored_at = [], [], datetime.now(UTC)
        for row, pairs in zip(rows, scored.scores, strict=True):
            origin = {field.name: row[field.name] for field in ORIGIN}
            rejects += [origin | reject for reject in row["rejects"]]
            for item_id, pair in zip(row["item_ids"], pairs, strict=True):
                if math.isfinite(pair.score):
                    prompt = {name: row[name] for name in ("user_id", "num_similar_users", "cold_start")}
                    result = {"item_id": item_id, "score": pair.score, "exit_layer": pair.exit_layer}
                    scores.append(prompt | result | self._constants | {"scored_at": scored_at})
                else:
                    reason = f"p(yes) is {pair.score}: the LLM's numbers overflow (llm.dtype) or its weights are broken"
                    rejects.append(origin | {"item_id": item_id, "error_code": "score_not_finite", "error": reason})
        tables = pa.Table.from_pylist(scores, schema=SCORES), pa.Table.from_pylist(rejects, schema=REJECTS)
        return *tables, scored.figures


class Meters:
    """Counters and histograms that Ray exports to Prometheus, as `ray_optirag_*`."""

    def __init__(self, exit_layers: list[int]) -> None:
        self._pairs = metrics.Counter("optirag_pairs", "pairs by outcome: scored or a reject's code", ("outcome",))
        self._depth = metrics.Histogram("optirag_exit_layer", "exit layers", [layer + 0.5 for layer in exit_layers])
        self._seconds = metrics.Histogram("optirag_shard_seconds", "of scoring and writing a shard", SECONDS)

    def add(self, counts: dict[str, Any], seconds: float) -> None:
        outcomes = Counter(counts["rejects"]) + Counter(scored=sum(counts["exits"].values()))
        for outcome, count in outcomes.items():
            self._pairs.inc(count, {"outcome": outcome})
        for layer, count in counts["exits"].items():
            for _ in range(count):
                self._depth.observe(int(layer))
        self._seconds.observe(seconds)


def open_run(settings: Settings, name: str) -> Run:
    """A run of the settings' workspace."""
    return Run(open_storage(settings.workspace, settings.storage), name)


def _planned_inputs(settings: Settings, versions: dict[str, str], digests: dict[str, str]) -> Inputs:
    """The artifacts that the run was planned with.

    Raises:
        ArtifactMismatch: one has been made anew since: an actor that starts late would score with another.
    """
    inputs = open_inputs(settings, *KINDS, versions=versions)
    now = {**inputs.digests, "prompt.template": PromptTemplate(settings.prompt).digest}
    if changed := [name for name in digests if now[name] != digests[name]]:
        raise ArtifactMismatch(f"{changed[0]} has changed since the run began: run the job again, as another run")
    return inputs


def open_scorer(settings: Settings, inputs: Inputs) -> Scorer:
    """The scorer of these artifacts, on the GPU where the actor has one."""
    model, _ = load_llm(inputs["llm"].path, dtype=settings.llm.dtype)
    model.to("cuda" if settings.scoring.num_gpus_per_actor else "cpu")
    answer_ids = tuple(inputs["llm"].metrics["answer_ids"])
    heads = ExitHeads(model, settings.exits.layers, answer_ids)
    heads.load(inputs["exit_heads"].path)
    policy = ExitPolicy(**settings.exits.model_dump(include=EXIT_POLICY))
    options = settings.scoring.model_dump(include={"max_tokens_in_flight", "deterministic", "compile_layers"})
    return Scorer(model, heads.to(model.device), policy, answer_ids, **options)
