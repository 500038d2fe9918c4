"""Requests -> similar users -> prompts -> early-exit scores and rejects, every pair exactly once: `scores` (Ray Data).

    python -m ray_jobs.score --config ray_jobs/configs/demo.yaml
    python -m ray_jobs.score --config FILE --requests.path s3://bucket/requests/ --run.name 2026-11-22

The requests are cut into shards of whole users, whatever later scores them. Shards go through Ray as in
`ray_jobs.shard_stream`; each ends in an attempt and a receipt, and the run in one manifest (`optirag_core.runs`).
Killed at any moment, the same command goes on with the shards that have no receipt.
"""

import logging
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from optirag_core.artifacts import scratch_folder
from optirag_core.config import Settings
from optirag_core.errors import DataError
from optirag_core.evaluation.run_report import PAGE, run_report
from optirag_core.inference.opening import TRAINED, Artifacts, open_artifacts
from optirag_core.inference.parts import check_prompts_fit
from optirag_core.inference.requests import open_source
from optirag_core.recipes import run_identity
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.plan import Shard, ShardPlan, plan_shards
from optirag_core.runs.run import drive
from optirag_core.runs.totals import Totals
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.shard_stages import BuildPrompts, ScorePrompts, open_run
from ray_jobs.shard_stream import Stage, stream

log = logging.getLogger(__name__)
LOG_EVERY_S = 10.0
"""Off a terminal, progress is a line in the log."""


def score(settings: Settings) -> dict[str, Any]:
    """Score every requested pair with the artifacts at hand.

    Returns:
        The manifest of the committed run.
    """
    artifacts = open_artifacts(settings, *TRAINED)
    check_prompts_fit(settings, artifacts)
    with scratch_folder() as scratch:
        source = open_source(settings, artifacts, scratch)
        plan = plan_shards(source.tables, settings.run.pairs_per_shard, scratch / "shards")
        if not plan.pairs:
            raise DataError(f"there is no pair to score: {source.name} asks for none")
        identity = run_identity(settings, artifacts.digests, source.identity, plan)
        run = open_run(settings, settings.run.name or identity.run_id[:12])
        log.info("run %s: %s pairs in %d shards", run.uri, f"{plan.pairs:,}", len(plan.shards))
        job = Job(settings, artifacts, run.name, identity.run_id, plan)
        manifest = drive(
            run, identity, plan, scratch / "shards", job.execute, parents=artifacts.digests,
            lease_s=settings.run.lease_s, max_reject_share=settings.run.max_reject_share,
            keep_newer=settings.run.name is not None,
            report=lambda totals: run_report(
                run.name, identity, totals, seconds=job.seconds, resumed=job.resumed
            ),
        )  # fmt: skip
    if not job.was_needed:
        log.info("scores/%s is there already: nothing to do", run.name)
    if settings.run.clean:
        for path in run.leftovers():
            run.storage.delete(path)
    metrics = manifest["metrics"]
    log.info(
        "scored %d pairs, rejected %d, mean exit layer %.2f, %.1f pairs/s in a scorer",
        metrics["scored"], metrics["rejected"], metrics["mean_exit_layer"], metrics["pairs_per_scorer_second"],
    )  # fmt: skip
    log.info("report of the run   %s/%s", run.uri, next(path for path in manifest["files"] if path.endswith(PAGE)))
    return manifest


class Job:
    """The shards of one call of `score`, on Ray."""

    def __init__(self, settings: Settings, artifacts: Artifacts, run: str, run_id: str, plan: ShardPlan) -> None:
        arguments = {"settings": settings.model_dump(mode="json"), "pins": artifacts.pins, "run": run}
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
            for receipt in stream(shards, self._build, self._score, self._settings):
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


if __name__ == "__main__":
    run_job(score)
