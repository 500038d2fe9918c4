"""Requests -> similar users -> prompts -> early-exit scores and rejects, every pair exactly once: `scores` (Ray Data).

    python -m ray_jobs.score --config ray_jobs/configs/demo.yaml
    python -m ray_jobs.score --config FILE --scoring.requests s3://bucket/requests/ --scoring.run 2026-11-22

The requests are cut into shards of whole users, whatever later scores them. Shards go through Ray as in
`ray_jobs.shard_stream`; each ends in an attempt and a receipt, and the run in one manifest (`optirag_core.runs`).
Killed at any moment, the same command goes on with the shards that have no receipt.
"""

import logging
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm
from transformers import AutoConfig

from optirag_core import __version__
from optirag_core.artifacts import scratch_folder
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS, require_columns
from optirag_core.data.splits import requests_for
from optirag_core.errors import ArtifactMismatch, ConfigError, DataError
from optirag_core.evaluation.run_report import PAGE, run_report
from optirag_core.prompting.assembly import requests_from
from optirag_core.prompting.template import PromptTemplate
from optirag_core.retrieval.candidates import Candidates
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import Shard, ShardPlan, plan_shards
from optirag_core.runs.requests import grouped, open_requests
from optirag_core.runs.run import drive
from optirag_core.runs.totals import Totals
from ray_jobs.artifact_job import Inputs, open_inputs
from ray_jobs.command import run_job
from ray_jobs.prompt_stage import check_context
from ray_jobs.session import ray_session
from ray_jobs.shard_stages import EXIT_POLICY, KINDS, BuildPrompts, ScorePrompts, open_run
from ray_jobs.shard_stream import Stage, stream

log = logging.getLogger(__name__)
LOG_EVERY_S = 10.0
"""Off a terminal, progress is a line in the log."""
CANDIDATE_USERS = 4096
"""Users whose candidates are looked up at a time."""


def score(settings: Settings) -> dict[str, Any]:
    """Score every requested pair with the artifacts at hand.

    Returns:
        The manifest of the committed run.
    """
    inputs = open_inputs(settings, *KINDS)
    _check_prompt(settings, inputs)
    with scratch_folder() as scratch:
        source = _source(settings, inputs, scratch)
        plan = plan_shards(source.tables, settings.scoring.pairs_per_shard, scratch / "shards")
        if not plan.pairs:
            raise DataError(f"there is no pair to score: {source.name} asks for none")
        identity = identity_of(settings, inputs.digests, source.identity, plan)
        run = open_run(settings, settings.scoring.run or identity.run_id[:12])
        log.info("run %s: %s pairs in %d shards", run.uri, f"{plan.pairs:,}", len(plan.shards))
        job = Job(settings, inputs, run.name, identity.run_id, plan)
        manifest = drive(
            run, identity, plan, scratch / "shards", job.execute, parents=inputs.digests,
            lease_s=settings.scoring.lease_s, max_reject_share=settings.scoring.max_reject_share,
            keep_newer=settings.scoring.run is not None,
            report=lambda totals: run_report(
                run.name, identity, totals, seconds=job.seconds, resumed=job.resumed
            ),
        )  # fmt: skip
    if not job.was_needed:
        log.info("scores/%s is there already: nothing to do", run.name)
    if settings.scoring.clean:
        for path in run.leftovers():
            run.storage.delete(path)
    metrics = manifest["metrics"]
    log.info(
        "scored %d pairs, rejected %d, mean exit layer %.2f, %.1f pairs/s in a scorer",
        metrics["scored"], metrics["rejected"], metrics["mean_exit_layer"], metrics["pairs_per_scorer_second"],
    )  # fmt: skip
    log.info("report of the run   %s/%s", run.uri, next(path for path in manifest["files"] if path.endswith(PAGE)))
    return manifest


def identity_of(
    settings: Settings, artifacts: Mapping[str, str], requests: Mapping[str, Any], plan: ShardPlan
) -> RunIdentity:
    """Everything that the scores depend on.

    Args:
        artifacts: kind -> digest.
        requests: where the requests come from.
    """
    scoring, prompt = settings.scoring, settings.prompt.model_dump(mode="json", exclude={"template"})
    return RunIdentity.of(
        {
            "code_version": __version__,
            "requests": requests,
            "artifacts": artifacts,
            "prompt": {**prompt, "template": PromptTemplate(settings.prompt).digest},
            "retriever": {"num_similar_users": settings.retriever.num_similar_users},
            "exits": settings.exits.model_dump(mode="json", include=EXIT_POLICY),
            "llm": {"dtype": settings.llm.dtype},
            "scoring": {
                "pairs_per_shard": scoring.pairs_per_shard,
                "max_tokens_in_flight": scoring.max_tokens_in_flight,
                "deterministic": scoring.deterministic,
                "compile_layers": scoring.compile_layers,
                "on_gpu": scoring.num_gpus_per_actor > 0,
                "cpu_threads": None if scoring.num_gpus_per_actor else settings.ray.torch_threads,
            },
            "plan": plan.digest,
        }
    )


@dataclass(frozen=True)
class Source:
    """Requests as a stream."""

    name: str
    tables: Iterator[pa.Table]  # of REQUESTS; a user's rows are contiguous
    identity: Mapping[str, Any]


class Job:
    """The shards of one call of `score`, on Ray."""

    def __init__(self, settings: Settings, inputs: Inputs, run: str, run_id: str, plan: ShardPlan) -> None:
        arguments = {
            "settings": settings.model_dump(mode="json"),
            "versions": {kind: inputs[kind].version for kind in KINDS},
            "digests": {**inputs.digests, "prompt.template": PromptTemplate(settings.prompt).digest},
            "run": run,
        }
        self._settings = settings
        self._build = Stage(BuildPrompts, arguments)
        self._score = Stage(ScorePrompts, arguments | {"run_id": run_id})
        self._pairs = plan.pairs
        self.was_needed = False  # not where the run is committed already
        self.resumed = 0  # pairs that were finished before
        self.seconds = 0.0

    def execute(self, shards: Sequence[Shard]) -> Generator[Receipt]:
        """Finish shards and show how far the run is."""
        self.was_needed = True
        left = sum(shard.pairs for shard in shards)
        self.resumed = self._pairs - left
        if self.resumed:
            log.info("%s of %s pairs are finished already", f"{self.resumed:,}", f"{self._pairs:,}")
        if not shards:
            return
        started = time.monotonic()
        with ray_session(self._settings.ray), closing(Progress(self._pairs, self.resumed)) as progress:
            for receipt in stream(shards, self._build, self._score, self._settings.scoring):
                progress.add(receipt)
                yield receipt
        self.seconds = time.monotonic() - started


class Progress:
    """Pairs done and asked, pairs per second, mean exit layer, rejects and time left: a bar, or lines in the log."""

    def __init__(self, pairs: int, done: int) -> None:
        self._bar = tqdm(desc="score", unit="pair", total=pairs, initial=done, disable=not sys.stderr.isatty())
        self._totals = Totals()
        self._pairs, self._before = pairs, done
        self._started = self._logged = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        self._totals.add(receipt)
        figures = {"layer": f"{self._totals.mean_exit_layer:.2f}", "rejects": self._totals.rejected}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(receipt.scored + receipt.rejected)
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            rate = max(self._totals.pairs, 1) / (now - self._started)
            done = self._before + self._totals.pairs
            log.info(
                "%s of %s pairs, %.1f pairs/s, mean exit layer %.2f, %d rejected, %.0f s left",
                f"{done:,}", f"{self._pairs:,}", rate, self._totals.mean_exit_layer, self._totals.rejected,
                (self._pairs - done) / rate,
            )  # fmt: skip

    def close(self) -> None:
        self._bar.close()


def _check_prompt(settings: Settings, inputs: Inputs) -> None:
    tuned_on, now = inputs["llm"].manifest["config"]["prompt"], PromptTemplate(settings.prompt).digest
    if tuned_on != now:
        raise ArtifactMismatch(
            f"llm/{inputs['llm'].version} was tuned on another prompt ({tuned_on[:12]}) than prompt.template "
            f"{settings.prompt.template} now gives ({now[:12]}): run tune_llm again or restore the template"
        )
    check_context(settings.prompt, AutoConfig.from_pretrained(inputs["llm"].path))
    longest, step = settings.prompt.max_tokens, settings.scoring.max_tokens_in_flight // 2
    if longest > step:
        raise ConfigError(
            f"prompt.max_tokens {longest} exceeds a step of the scorer, {step}: raise scoring.max_tokens_in_flight to "
            f"{2 * longest} or lower prompt.max_tokens"
        )


def _source(settings: Settings, inputs: Inputs, scratch: Path) -> Source:
    location, k = settings.scoring.requests, settings.scoring.all_items_top_k
    dataset = Dataset.load(inputs["dataset"].path) if location is None or k is not None else None
    if location is None:
        source = _from_dataset(settings, dataset)
    else:
        files = open_requests(location, settings.storage, scratch)
        source = Source(location, grouped(files, scratch), {"files": dict(files.sha256)})
    if k is None:
        return source
    filled = _with_candidates(source.tables, Candidates.load(inputs["retriever"].path, inputs["dataset"].path), k)
    return Source(source.name, filled, {**source.identity, "all_items_top_k": k})


def _from_dataset(settings: Settings, dataset: Dataset) -> Source:
    if settings.scoring.all_items_top_k is not None:
        users = pa.table({"user_id": dataset.users["user_id"]})
        for name in REQUESTS.names[1:]:
            users = users.append_column(REQUESTS.field(name), pa.nulls(len(users), REQUESTS.field(name).type))
        return Source("the users table", iter([users]), {"users": "all"})
    requests = requests_for(dataset.interactions, "test")
    identity: dict[str, Any] = {"split": "test", "max_requests": settings.scoring.max_requests}
    if settings.scoring.max_requests and settings.scoring.max_requests < len(requests):
        chosen = np.random.default_rng(settings.seed).permutation(len(requests))[: settings.scoring.max_requests]
        requests, identity = requests.take(np.sort(chosen)), identity | {"seed": settings.seed}
    table = require_columns(requests, REQUESTS, "requests").select(REQUESTS.names)
    return Source("the test split (dataset.min_history, dataset.split)", iter([table]), identity)


def _with_candidates(tables: Iterator[pa.Table], candidates: Candidates, k: int) -> Iterator[pa.Table]:
    """Requests whose users have no candidate list get the retriever's best items."""
    field = REQUESTS.field("item_ids")
    for table in tables:
        for start in range(0, len(table), CANDIDATE_USERS):
            part = table.slice(start, CANDIDATE_USERS)
            without = part.filter(pc.is_null(part["item_ids"]))
            asked = requests_from(without)
            found = iter(
                candidates.top(
                    [request.user_id for request in asked], k,
                    as_of=[request.as_of for request in asked],
                    as_of_position=[request.as_of_position for request in asked],
                )
            )  # fmt: skip
            lists = [next(found) if items is None else items for items in part["item_ids"].to_pylist()]
            yield part.set_column(part.column_names.index(field.name), field, pa.array(lists, field.type))


if __name__ == "__main__":
    run_job(score)
