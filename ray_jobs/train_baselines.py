"""Data set and evidence -> the CTR models that the LLM is compared with: a `baselines` artifact per model and seed.

python -m ray_jobs.train_baselines --config ray_jobs/configs/demo.yaml

One Ray Train run trains all cells (model x seed) that are not there yet. Its workers exchange no gradients: a cell is
minutes of one core, and a step so short that waiting for each other would cost more than it computes. Instead each
trains its cells by itself, and publishes them as soon as they are trained: a kill costs the cells that were being
trained, and the same command makes what is missing.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.baselines.artifact import PARENTS, Cell, cells, open_samples, save_baseline
from optirag_core.baselines.training import train_baseline as train
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.evaluation.html_page import number
from optirag_core.inference.opening import open_artifacts
from optirag_core.recipes import Recipe
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import Worker, fit, results, start_worker

log = logging.getLogger(__name__)


def train_baselines(settings: Settings) -> list[Artifact]:
    """Train every CTR model on all samples, hyperparameters by the same budget on validation."""
    artifacts = open_artifacts(settings, *PARENTS)
    workspace = artifacts.workspace
    wanted = cells(settings, artifacts, Dataset.load(artifacts["dataset"].path))
    missing = [cell.recipe.version for cell in wanted if not cell.recipe.made(workspace)]
    if missing:
        # names the run, and is no artifact
        run = Recipe("baselines", {"cells": [cell.recipe.version for cell in wanted]}, artifacts.digests)
        with ray_session(settings.ray), fit(_loop_over(missing), settings, artifacts, run, unit="model"):
            workspace.remove(run.training)
    made = [workspace.open("baselines", cell.recipe.version) for cell in wanted]
    for cell, artifact in zip(wanted, made, strict=True):
        names = ("validation_auc", "validation_log_loss", "test_auc", "test_log_loss")
        figures = [number(artifact.metrics[name]) for name in names]
        log.info("%s, seed %d: validation AUC %s, log loss %s; test %s, %s", cell.model, cell.seed, *figures)
    return made


def _loop_over(versions: Collection[str]) -> Callable[[dict[str, Any]], None]:
    """The loop of a worker over the cells that the driver found missing."""

    def loop(config: dict[str, Any]) -> None:
        worker = start_worker(config)
        dataset = Dataset.load(worker.artifacts["dataset"].path)
        wanted = cells(worker.settings, worker.artifacts, dataset)
        missing = [cell for cell in wanted if cell.recipe.version in versions]
        mine = dealt(missing, worker.rank, worker.workers.size)
        if mine:
            _train_cells(worker, dataset, mine)
        with results(worker, {}):
            pass

    return loop


def dealt(missing: Sequence[Cell], rank: int, size: int) -> list[Cell]:
    """A worker's cells, dealt out there and back: 0 1 2 2 1 0 0 1 2 ...

    The models come in the same order for each seed, slow ones and fast ones; dealt out in turns, one worker would have
    all of some models: on BookCrossing one of two cores was idle for 18 of 49 minutes.
    """
    rounds = (divmod(place, size) for place in range(len(missing)))
    ranks = [offset if turn % 2 == 0 else size - 1 - offset for turn, offset in rounds]
    return [cell for cell, owner in zip(missing, ranks, strict=True) if owner == rank]


def _train_cells(worker: Worker, dataset: Dataset, mine: Collection[Cell]) -> None:
    samples = open_samples(worker.settings, worker.artifacts, dataset).to(worker.device)
    workspace = worker.artifacts.workspace
    for done, cell in enumerate(mine, start=1):
        if cell.recipe.made(workspace):  # before a worker was lost
            continue
        trained = train(samples, cell.model, worker.settings.baselines, cell.seed)
        metrics = trained.metrics(samples)
        with scratch_folder() as files:
            save_baseline(files, trained, samples)
            cell.recipe.save(workspace, files, metrics)
        worker.progress(done, len(mine), validation_auc=metrics["validation_auc"])


if __name__ == "__main__":
    run_job(train_baselines)
