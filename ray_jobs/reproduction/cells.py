"""The cells of a study: what each measures, and from which artifacts.

What only reads (replays, other prompts for the same LLM) is a Ray task with one CPU and a scorer's GPU, all of them
beside each other where Ray has room. What is timed has the threads of a scorer, and follows, one after the other. What
trains is a chain of jobs, one after the other as well.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch

from optirag_core.config.settings import Settings
from optirag_core.evaluation.reproduction.cells import LLM_RATES, RATES, RETRIEVAL, cells_of
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.evaluation.reproduction.tables import FROZEN, MAIN, PRUNED, SIMILAR
from optirag_core.evaluation.reproduction.variants import NONE, SMALLER
from optirag_core.inference.opening import Artifacts, Pin, open_artifacts
from optirag_core.recipes import Recipe
from ray_jobs.reproduction import tasks
from ray_jobs.reproduction.study import Study, retrieved, tuned

log = logging.getLogger(__name__)
Task = Callable[..., Measurement]
"""(settings, artifacts, device, what it is asked) -> what it has measured."""


@dataclass(frozen=True)
class Opening:
    """Settings and the artifacts that fit them: what a task opens again."""

    settings: Settings
    pins: Mapping[str, Pin]

    @classmethod
    def of(cls, settings: Settings, artifacts: Artifacts) -> "Opening":
        return cls(settings, artifacts.pins)

    def open(self) -> tuple[Settings, Artifacts]:
        """In the process of the task."""
        return self.settings, open_artifacts(self.settings, *self.pins, pins=self.pins)


@dataclass(frozen=True)
class Cell:
    """One measurement that is wanted."""

    name: str
    recipe: Recipe
    task: Task
    opening: Opening
    asked: Mapping[str, Any]  # of the task
    timed: bool = False


def measure(study: Study) -> dict[str, Measurement]:
    """Every cell that the parts need, by name; those that are there are not measured again."""
    found: dict[str, Measurement] = {}
    timed: list[Cell] = []
    running: dict[ray.ObjectRef, Cell] = {}

    def finish() -> None:
        """One of those that run."""
        [done], _ = ray.wait(list(running), num_returns=1)
        cell = running.pop(done)
        found[cell.name] = ray.get(done)
        study.keep(cell.recipe, found[cell.name])
        log.info("%s: measured", cell.name)

    for cell in (cell for name in cells_of(study.settings) for cell in _cells(study, name)):
        kept = study.kept(cell.recipe)
        if kept is not None:
            log.info("%s: measured before", cell.name)
            found[cell.name] = kept
        elif cell.timed:
            timed.append(cell)
        else:
            running[_started(cell)] = cell
    while running:
        finish()
    for cell in timed:
        running[_started(cell)] = cell
        finish()
    return found


def _cells(study: Study, name: str) -> Iterator[Cell]:
    """One cell, or several of one name; variants are trained here, where they have to be."""
    settings, digests, reproduce = study.settings, study.digests, study.settings.reproduce
    main = Opening.of(settings, study.artifacts)
    if name == MAIN:
        sweeps = {"thresholds": reproduce.thresholds, "windows": reproduce.windows}
        yield Cell(name, study.recipe(name, digests, **sweeps), tasks.whole_run, main, {})
    elif name == FROZEN:
        yield Cell(name, study.recipe(name, digests), tasks.frozen, main, {})
    elif name == PRUNED:
        how = {"sparsity": reproduce.sparsity, "num_users": reproduce.calibration_users}
        yield Cell(name, study.recipe(name, digests, **how), tasks.pruned, main, how)
    elif name == RETRIEVAL:
        how = {"rounds": reproduce.timed_rounds, "users": reproduce.timed_users}
        recipe = study.recipe(name, digests, encoder=reproduce.text_encoder, **how)
        yield Cell(name, recipe, tasks.retrieval_times, main, {}, timed=True)
    elif name == SIMILAR:
        for k in reproduce.num_similar_users:
            prompt = {"num_similar_users": k}
            each = f"{SIMILAR} {k}"
            recipe = study.recipe(each, digests, prompt=prompt)
            yield Cell(each, recipe, tasks.other_prompts, main, {"prompt": prompt}, timed=True)
    elif name in (RATES, LLM_RATES):
        yield _rates(study, name)
    else:
        yield _variant(study, name)


def _variant(study: Study, name: str) -> Cell:
    """Another retriever, or none: read by the one LLM, or by one that is tuned on it."""
    changed, reproduce = study.variant(name), study.settings.reproduce
    if name == SMALLER or reproduce.tune == "each":
        artifacts = tuned(changed)
        recipe = study.recipe(name, artifacts.digests)
        return Cell(name, recipe, tasks.own_prompts, Opening.of(changed, artifacts), {})
    main = Opening.of(study.settings, study.artifacts)
    if name == NONE:
        asked = {"prompt": {"num_similar_users": 0}}
        return Cell(name, study.recipe(name, study.digests, **asked), tasks.other_prompts, main, asked)
    retriever, index = retrieved(changed)
    parents = {**study.digests, "retriever": retriever.digest, "index": index.digest}
    versions = {"workspace": changed.workspace, "retriever": retriever.version, "index": index.version}
    return Cell(name, study.recipe(name, parents), tasks.other_prompts, main, versions)


def _rates(study: Study, name: str) -> Cell:
    """The run's own systems beside table 4's without similar users, or beside table 9's smaller LLM."""
    settings, reproduce = study.settings, study.settings.reproduce
    how = {"users": reproduce.timed_users, "rounds": reproduce.timed_rounds}
    other, parents = NONE if name == RATES else SMALLER, dict(study.digests)
    opening = None
    if other == SMALLER or reproduce.tune == "each":
        changed = study.variant(other)
        artifacts = tuned(changed)
        opening = Opening.of(changed, artifacts)
        parents["other llm"] = artifacts.digests["llm"]
    main = Opening.of(settings, study.artifacts)
    asked = {"other": other, "opening": opening}
    return Cell(name, study.recipe(name, parents, **how), tasks.rates, main, asked, timed=True)


def _started(cell: Cell) -> ray.ObjectRef:
    """With as many CPUs as its torch has threads, or all that there are."""
    actors = cell.opening.settings.actors
    threads = actors.torch_threads if cell.timed else 1
    remote = ray.remote(
        num_cpus=min(float(threads), ray.cluster_resources()["CPU"]),
        num_gpus=actors.num_gpus_per_scorer,
        accelerator_type=actors.accelerator_type,
    )(_run)
    return remote.remote(cell.task, cell.opening, dict(cell.asked), threads)


def _run(task: Task, opening: Opening, asked: Mapping[str, Any], threads: int) -> Measurement:
    settings, artifacts = opening.open()
    torch.set_num_threads(threads)
    device = "cuda" if settings.actors.num_gpus_per_scorer else "cpu"
    return task(settings, artifacts, device, **asked)
