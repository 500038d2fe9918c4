"""Requests -> similar users -> prompts -> early-exit scores and rejects, every pair exactly once: `scores` (Ray Data).

    python -m ray_jobs.score --config ray_jobs/configs/demo.yaml
    python -m ray_jobs.score --config FILE --requests.path s3://bucket/requests/ --run.name 2026-11-22

The requests are cut into shards of whole users, whatever later scores them. Shards go through Ray as in
`ray_jobs.shard_stream`; each ends in an attempt and a receipt, and the run in one manifest (`optirag_core.runs`).
Killed at any moment, the same command goes on with the shards that have no receipt. With a bound in `compare` a run
that differs too much from the one before is committed and does not become the newest (`ray_jobs.compare`).
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from optirag_core.artifacts import LATEST, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.errors import DataError
from optirag_core.evaluation.run_comparison import committed
from optirag_core.evaluation.run_page import PAGE, run_page
from optirag_core.inference.opening import TRAINED, Artifacts, open_artifacts
from optirag_core.inference.parts import check_prompts_fit
from optirag_core.inference.requests import open_source
from optirag_core.recipes import run_identity
from optirag_core.runs.plan import plan_shards
from optirag_core.runs.run import Run
from optirag_core.runs.work import Work, begin
from ray_jobs.command import run_job
from ray_jobs.compare import gate
from ray_jobs.pushgateway import push_committed
from ray_jobs.run_events import RunEvents
from ray_jobs.run_progress import finish
from ray_jobs.shard_stages import BuildPrompts, ScorePrompts, open_run
from ray_jobs.shard_stream import Stage

log = logging.getLogger(__name__)


def score(settings: Settings) -> dict[str, Any]:
    """Score every requested pair with the artifacts at hand.

    Returns:
        The manifest of the committed run.

    Raises:
        RunHeld: it is beyond a bound of `compare`.
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
        build, scorer = _stages(settings, artifacts, run.name, identity.run_id)
        with (
            RunEvents(settings.tracking.events, run=run.name, run_id=identity.run_id) as events,
            begin(run, identity, plan, scratch / "shards", lease_s=settings.run.lease_s) as work,
        ):
            if work.committed:
                log.info("scores/%s is there already: nothing to do", run.name)
            with closing(finish(work, build, scorer, settings, events)) as receipts:
                for receipt in receipts:
                    work.add(receipt)
            with _telling_commit(work, run, settings, events):
                manifest = work.commit(
                    partial(run_page, run.name, identity), parents=artifacts.digests,
                    max_reject_share=settings.run.max_reject_share, keep_newer=settings.run.name is not None,
                    check=gate(settings, run.name), pointer=settings.run.pointer,
                )  # fmt: skip
    if settings.run.clean:
        for path in run.leftovers():
            run.storage.delete(path)
    metrics = manifest["metrics"]
    log.info(
        "scored %d pairs, rejected %d, mean exit layer %.2f, %.1f pairs/s in a scorer",
        metrics["scored"], metrics["rejected"], metrics["mean_exit_layer"], metrics["pairs_per_scorer_second"],
    )  # fmt: skip
    log.info("page of the run   %s/%s", run.uri, next(path for path in manifest["files"] if path.endswith(PAGE)))
    return manifest


@contextmanager
def _telling_commit(work: Work, run: Run, settings: Settings, events: RunEvents) -> Iterator[None]:
    """Tell of a run that is committed in the body; the Pushgateway, where it has become the newest."""
    before, metrics = work.committed, {}
    try:
        yield
    finally:
        if work.committed and not before:
            metrics = committed(run)["metrics"]
            names = ("scored", "rejected", "rejects", "mean_exit_layer", "pairs_per_scorer_second")
            events.tell("run_committed", **{name: metrics[name] for name in names})
    if metrics and settings.tracking.pushgateway and settings.run.pointer == LATEST:
        push_committed(settings.tracking.pushgateway, run.name, metrics)


def _stages(settings: Settings, artifacts: Artifacts, run: str, run_id: str) -> tuple[Stage, Stage]:
    """Builds prompts, and scores them."""
    arguments = {"settings": settings.model_dump(mode="json"), "pins": artifacts.pins, "run": run}
    return Stage(BuildPrompts, arguments), Stage(ScorePrompts, arguments | {"run_id": run_id})


if __name__ == "__main__":
    run_job(score)
