"""Requests -> similar users -> prompts -> early-exit scores and rejects: the `scores` artifact (Ray Data).

    python -m ray_jobs.score --config ray_jobs/configs/demo.yaml
    python -m ray_jobs.score --config FILE --scoring.requests requests.parquet

Requests are cut into shards of whole users; a shard is one block through every stage:

    plan   REQUESTS  one row per user      the driver
    build  PROMPTS   one row per user      an actor with histories, index and token pieces; CPU
    score  RESULTS   one row per pair      a pool of actors with one Scorer each
    write  scores and rejects              the driver, shard by shard, then the manifest
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
import torch
from ray.data import ActorPoolStrategy
from tqdm import tqdm

from optirag_core.artifacts import Artifact, scratch_folder, version_of
from optirag_core.config import Settings, settings_from
from optirag_core.data.dataset import Dataset, write_table
from optirag_core.data.schema import REJECTS, REQUESTS, SCORES, TIMESTAMP, require_columns
from optirag_core.data.splits import requests_for
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ArtifactMismatch, DataError
from optirag_core.manifest import file_sha256
from optirag_core.prompting.assembly import requests_from
from optirag_core.prompting.template import PromptTemplate
from ray_jobs.artifact_job import Inputs, finished, open_inputs
from ray_jobs.command import run_job
from ray_jobs.prompt_stage import open_assembler, prompt_config
from ray_jobs.session import ray_session

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
RESULTS = pa.schema(
    [
        *ORIGIN,
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("exit_layer", pa.int16()),
        ("num_similar_users", pa.int8()),
        ("cold_start", pa.bool_()),
        ("scored_at", TIMESTAMP),
        ("forced", pa.bool_()),  # stopped by exits.group_stop
        ("seconds", pa.float64()),  # the pair's even share of its shard's scoring time
        ("gflop", pa.float64()),  # ... and of its shard's useful work
        ("error_code", pa.string()),  # null for a scored pair
        ("error", pa.string()),
    ]
)


def score(settings: Settings) -> Artifact:
    """Score every requested pair with the artifacts at hand."""
    inputs = open_inputs(settings, *KINDS)
    _check_prompt(settings, inputs)
    requests = _requests(settings, inputs)
    config = {
        "exits": settings.exits.model_dump(mode="json", include=EXIT_POLICY),
        **prompt_config(settings),
        "max_requests": settings.scoring.max_requests,
        "requests": "test split" if settings.scoring.requests is None else file_sha256(Path(settings.scoring.requests)),
        "seed": settings.seed,
    }
    if done := finished(inputs.workspace, "scores", config, inputs.digests):
        return done
    version = version_of(config, inputs.digests)
    with ray_session(settings.ray), scratch_folder() as files:
        metrics = _run(settings, requests, inputs, files, run_id=version)
        artifact = inputs.workspace.save(
            "scores", version, files, config=config, parents=inputs.digests, metrics=metrics
        )
    log.info(
        "scored %d pairs, rejected %d, in %.1f s (%.1f pairs/s in the scorers), mean exit layer %.2f",
        metrics["scored"], metrics["rejected"], metrics["seconds"], metrics["pairs_per_scorer_second"],
        metrics["mean_exit_layer"],
    )  # fmt: skip
    return artifact


def _check_prompt(settings: Settings, inputs: Inputs) -> None:
    tuned_on, now = inputs["llm"].manifest["config"]["prompt"], PromptTemplate(settings.prompt).digest
    if tuned_on != now:
        raise ArtifactMismatch(
            f"llm/{inputs['llm'].version} was tuned on another prompt ({tuned_on[:12]}) than prompt.template "
            f"{settings.prompt.template} now gives ({now[:12]}): run tune_llm again or restore the template"
        )


def _requests(settings: Settings, inputs: Inputs) -> pa.Table:
    source = settings.scoring.requests
    if source is None:
        requests = requests_for(Dataset.load(inputs["dataset"].path).interactions, "test")
    else:
        requests = _read_requests(Path(source))
    if settings.scoring.max_requests and settings.scoring.max_requests < len(requests):
        chosen = np.random.default_rng(settings.seed).permutation(len(requests))[: settings.scoring.max_requests]
        requests = requests.take(np.sort(chosen))
    if not len(requests):
        raise DataError("there is no request to score: the test split is empty (dataset.min_history, dataset.split)")
    return require_columns(requests, REQUESTS, "requests").select(REQUESTS.names)


def _read_requests(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"no requests file {path}: scoring.requests must name a Parquet file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no readable Parquet file: {error}") from None
    for field in REQUESTS:  # as_of and as_of_position may be left out
        if field.name.startswith("as_of") and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _run(settings: Settings, requests: pa.Table, inputs: Inputs, files: Path, *, run_id: str) -> dict[str, Any]:
    started = time.monotonic()
    model_version = f"{inputs['llm'].version}+{inputs['exit_heads'].version}"
    constants = {"run_id": run_id, "model_version": model_version}
    tally = Tally()
    progress = tqdm(desc="score", unit="pair", total=pc.sum(pc.list_value_length(requests["item_ids"])).as_py())
    for number, results in enumerate(_results(settings, requests, inputs)):
        tally.add(results)
        progress.update(len(results))
        failed = pc.is_valid(results["error_code"])
        scores = results.filter(pc.invert(failed))
        for name, value in constants.items():
            scores = scores.append_column(name, pa.repeat(value, len(scores)))
        write_table(
            require_columns(scores, SCORES, "scores").select(SCORES.names), files / f"scores-{number:05}.parquet"
        )
        rejects = results.filter(failed).select(REJECTS.names)
        write_table(rejects, files / f"rejects-{number:05}.parquet")
    progress.close()
    return tally.checked(requests, settings.scoring.max_reject_share) | {"seconds": time.monotonic() - started}


def _results(settings: Settings, requests: pa.Table, inputs: Inputs) -> Iterator[pa.Table]:
    options = settings.scoring
    arguments = {
        "settings": settings.model_dump(mode="json"),
        "versions": {kind: inputs[kind].version for kind in KINDS},
    }
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False  # the driver shows one for the pairs
    shards = ray.data.from_arrow(plan_shards(requests, options.pairs_per_shard))
    prompts = shards.map_batches(
        BuildPrompts, fn_constructor_kwargs=arguments, compute=ActorPoolStrategy(size=1), num_cpus=0.5,
        batch_size=None, batch_format="pyarrow",
    )  # fmt: skip
    results = prompts.map_batches(
        ScorePrompts, fn_constructor_kwargs=arguments, compute=ActorPoolStrategy(size=options.num_actors),
        num_cpus=options.num_cpus_per_actor, num_gpus=options.num_gpus_per_actor,
        accelerator_type=options.accelerator_type, batch_size=None, batch_format="pyarrow",
    )  # fmt: skip
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow")


def plan_shards(requests: pa.Table, pairs_per_shard: int) -> list[pa.Table]:
    """Cut requests, in order, into tables of whole users with about `pairs_per_shard` pairs each."""
    pairs = pc.fill_null(pc.list_value_length(requests["item_ids"]), 0).to_numpy()
    shard = (np.cumsum(pairs) - pairs) // pairs_per_shard  # by the number of pairs before each request
    starts = np.flatnonzero(np.r_[True, shard[1:] != shard[:-1]])
    stops = np.r_[starts[1:], len(requests)]
    return [requests.slice(start, stop - start) for start, stop in zip(starts, stops, strict=True)]


class BuildPrompts:
    """REQUESTS -> PROMPTS: histories, FAISS search, token pieces."""

    def __init__(self, settings: dict[str, Any], versions: dict[str, str]) -> None:
        loaded = settings_from(settings)
        inputs = open_inputs(loaded, *KINDS, versions=versions)
        _, tokenizer = load_llm(inputs["llm"].path)
        dataset = Dataset.load(inputs["dataset"].path)
        self._assembler, _ = open_assembler(loaded, dataset, inputs["retriever"], tokenizer)

    def __call__(self, requests: pa.Table) -> pa.Table:
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
    """PROMPTS -> RESULTS: one `Scorer.score` call per shard."""

    def __init__(self, settings: dict[str, Any], versions: dict[str, str]) -> None:
        loaded = settings_from(settings)
        torch.set_num_threads(loaded.ray.torch_threads)
        if not loaded.scoring.num_gpus_per_actor:
            keep_freed_memory()
        inputs = open_inputs(loaded, *KINDS, versions=versions)
        self._scorer = open_scorer(loaded, inputs)

    def __call__(self, prompts: pa.Table) -> pa.Table:
        rows = prompts.to_pylist()
        scores = self._scorer.score([UserGroup(row["prefix"], row["suffixes"]) for row in rows])
        figures = self._scorer.last_run
        share = 1 / max(1, figures.pairs)
        scored_at = datetime.now(UTC)
        results = []
        for row, pair_scores in zip(rows, scores, strict=True):
            shared = {name: row[name] for name in ("user_id", "as_of", "as_of_position")}
            results += [shared | reject for reject in row["rejects"]]
            shared |= {"num_similar_users": row["num_similar_users"], "cold_start": row["cold_start"]}
            shared |= {"scored_at": scored_at, "seconds": share * figures.seconds}
            shared |= {"gflop": share * figures.cost.flops / 1e9}
            for item_id, pair in zip(row["item_ids"], pair_scores, strict=True):
                results.append(shared | {"item_id": item_id} | vars(pair))
        return pa.Table.from_pylist(results, schema=RESULTS)


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


class Tally:
    """Counts of what came out, checked against what was asked."""

    def __init__(self) -> None:
        self._pairs: list[pa.Table] = []
        self._depths = self._seconds = self._gflop = 0.0
        self._scored = self._forced = 0

    def add(self, results: pa.Table) -> None:
        self._pairs.append(results.select(["user_id", "item_id"]))
        self._scored += len(results) - results["score"].null_count
        self._depths += pc.sum(results["exit_layer"]).as_py() or 0
        self._forced += pc.sum(results["forced"]).as_py() or 0
        self._seconds += pc.sum(results["seconds"]).as_py() or 0.0
        self._gflop += pc.sum(results["gflop"]).as_py() or 0.0

    def checked(self, requests: pa.Table, max_reject_share: float) -> dict[str, Any]:
        """The run's figures.

        Raises:
            DataError: too many rejects, or a pair is missing or there twice.
        """
        asked = pa.table(
            {
                "user_id": requests["user_id"].take(pc.list_parent_indices(requests["item_ids"])),
                "item_id": pc.list_flatten(requests["item_ids"]),
            }
        )
        answered = pa.concat_tables(self._pairs)
        order = [("user_id", "ascending"), ("item_id", "ascending")]
        if not asked.sort_by(order).equals(answered.sort_by(order)):
            raise DataError(f"{len(asked)} pairs asked, {len(answered)} answered, and they differ: nothing written")
        rejected = len(answered) - self._scored
        if rejected > max_reject_share * len(answered):
            raise DataError(
                f"{rejected} of {len(answered)} pairs were rejected, more than scoring.max_reject_share "
                f"{max_reject_share:.2%}: nothing written"
            )
        return {
            "scored": self._scored,
            "rejected": rejected,
            "mean_exit_layer": self._depths / max(1, self._scored),
            "forced_exits": self._forced,
            "useful_gflop": self._gflop,
            "scorer_seconds": self._seconds,
            "pairs_per_scorer_second": self._scored / self._seconds if self._seconds else 0.0,
        }


if __name__ == "__main__":
    run_job(score)
