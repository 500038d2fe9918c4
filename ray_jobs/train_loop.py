"""One Ray Train run: a loop on the workers of `training.<kind>`, whose rank 0 hands back files and metrics.

Workers open exactly the artifacts that the driver has opened, by version and digest. Where some are lost, all of them
start again and go on from the last checkpoint; so does the next driver with the same recipe.
"""

import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, Result, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from optirag_core.artifacts import Workspace, scratch_folder
from optirag_core.config.run import LlmWorkersSettings, WorkersSettings
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.errors import ArtifactMismatch, ConfigError
from optirag_core.inference.opening import Artifacts, open_artifacts
from optirag_core.recipes import Recipe, prompt_config
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.workers import Workers
from ray_jobs.progress import Reporter, progress_shown
from ray_jobs.resources import check_workers
from ray_jobs.session import own_error
from ray_jobs.trackers import tracking

log = logging.getLogger(__name__)
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Worker:
    """What the loop finds in its process, and the process's place among the data-parallel workers."""

    settings: Settings
    artifacts: Artifacts  # those that the driver has opened
    workers: Workers
    checkpoints: Checkpoints
    progress: Reporter

    @property
    def rank(self) -> int:
        return self.workers.rank

    @property
    def device(self) -> torch.device:
        return self.workers.device


@contextmanager
def fit(
    loop: Callable[[dict[str, Any]], None],
    settings: Settings,
    artifacts: Artifacts,
    recipe: Recipe,
    *,
    unit: str,
    weights: str | None = None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run `loop` on the workers, show and track its progress in `unit`s, and open what rank 0 hands back.

    Args:
        loop: calls `start_worker` on its argument first and `results` last.
        artifacts: the parents of what is trained.
        recipe: of what is trained; its kind is a field of `TrainingSettings`.
        weights: digest of a pretrained LLM's files.

    Yields:
        The folder of files and the metrics; both are gone after the block.
    """
    # Ray Train resumes a finished run of the same place and name silently, and trains nothing: a new place for each.
    storage = f"{settings.workspace}/{recipe.training}/ray-{uuid.uuid4().hex[:12]}"
    workers: WorkersSettings = getattr(settings.training, recipe.kind)
    config = {
        "settings": settings.model_dump(mode="json"), "pins": artifacts.pins, "prompt": prompt_config(settings),
        "kind": recipe.kind, "training": recipe.training, "weights": weights,
    }  # fmt: skip
    try:
        with tracking(settings.tracking, recipe) as tracked:
            with progress_shown(recipe.kind, unit, tracked.add) as board:
                result = _fitted(loop, config | {"board": board}, workers, storage, settings)
            with scratch_folder() as folder:
                result.checkpoint.to_directory(str(folder))
                if not workers.num_workers:  # in-process nothing is uploaded: the checkpoint is the worker's folder
                    shutil.rmtree(result.checkpoint.path)
                metrics_file = folder / METRICS_FILE
                metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
                metrics_file.unlink()
                tracked.add_metrics(metrics)
                yield folder, metrics
    finally:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
        if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
            filesystem.delete_dir(path)


def _fitted(
    loop: Callable[[dict[str, Any]], None], config: dict[str, Any], workers: WorkersSettings, storage: str,
    settings: Settings,
) -> Result:  # fmt: skip
    """Lost workers are replaced; an error that the loop raised ends the run at once, as it would come again.

    Ray Train's own `FailureConfig` does not tell the two apart.
    """
    max_failures = settings.training.max_failures
    for failures in range(max_failures + 1):
        check_workers(config["kind"], workers, settings.ray.wait_for_nodes_s)
        run_config = RunConfig(name=f"{config['kind']}-{failures}", storage_path=storage)
        try:
            return _trainer(loop, config, workers, run_config).fit()
        except WorkerGroupError as error:
            # What Ray found by itself, e.g. a failed health check; what the loop raised is of another module.
            lost = [each for each in error.worker_failures.values() if type(each).__module__.startswith("ray.")]
            if own_error(error) or not lost or failures == max_failures:
                raise
            log.warning(
                "warning: %s: a worker was lost (%d of at most %d times), going on from the last checkpoint: %s",
                config["kind"], failures + 1, max_failures, " ".join(str(lost[0]).split()),
            )  # fmt: skip
    raise AssertionError("the last try returns or raises")


def _trainer(
    loop: Callable[[dict[str, Any]], None], config: dict[str, Any], workers: WorkersSettings, run_config: RunConfig
) -> TorchTrainer:
    resources = {"CPU": workers.num_cpus_per_worker}
    if workers.num_gpus_per_worker:
        resources["GPU"] = workers.num_gpus_per_worker
    return TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=bool(workers.num_gpus_per_worker),
            resources_per_worker=resources,
            accelerator_type=workers.accelerator_type,
        ),
        run_config=run_config,
    )


def start_worker(config: Mapping[str, Any]) -> Worker:
    """Open the pinned artifacts, find this worker's place; sets torch's threads.

    Raises:
        ArtifactMismatch: this worker finds other artifacts, or another template, than the driver.
    """
    settings = settings_from(config["settings"])
    if prompt_config(settings) != config["prompt"]:
        raise ArtifactMismatch(
            f"prompt.template {settings.prompt.template} is another file on this worker than on the driver, or has "
            "changed since the job began: give it a place that all machines share, and run the job again"
        )
    workers: WorkersSettings = getattr(settings.training, config["kind"])
    torch.set_num_threads(workers.torch_threads)
    context = ray.train.get_context()
    place = Workers(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device() if workers.num_gpus_per_worker else torch.device("cpu"),
        parallelism=workers.parallelism if isinstance(workers, LlmWorkersSettings) else "ddp",
    )
    if workers.num_gpus_per_worker and place.device.type == "cpu":
        raise ConfigError(
            f"training.{config['kind']}.num_gpus_per_worker is {workers.num_gpus_per_worker}, but torch finds no GPU "
            "here: set it to 0, or run where there is one"
        )
    return Worker(
        settings,
        open_artifacts(settings, *config["pins"], pins=config["pins"]),
        place,
        Checkpoints(
            Workspace(settings.workspace, settings.storage), config["training"], every_s=settings.training.checkpoint_s
        ),
        progress=Reporter(config["board"] if place.rank == 0 else None),
    )


@contextmanager
def results(worker: Worker, metrics: dict[str, Any]) -> Iterator[Path | None]:
    """Collect rank 0's files and hand them to the driver; every rank must enter, when its last step is reported.

    Yields:
        A folder to save files in, None on the other ranks.
    """
    if worker.rank:
        yield None
        ray.train.report(metrics)
        return
    worker.progress.close()
    folder = Path(tempfile.mkdtemp(prefix="optirag-train-"))  # deleted by Ray once uploaded, or by `fit`
    yield folder
    (folder / METRICS_FILE).write_text(json.dumps(metrics), encoding="utf-8")
    checkpoint = Checkpoint.from_directory(str(folder))
    ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)
