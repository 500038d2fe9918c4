"""One Ray Train run: a loop on the workers of `training.<kind>`, whose rank 0 hands back files and metrics.

Workers open exactly the artifacts that the driver has opened, by version and digest.
"""

import json
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
import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from optirag_core.artifacts import scratch_folder
from optirag_core.config.run import WorkersSettings
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import Artifacts, open_artifacts
from optirag_core.recipes import prompt_config
from ray_jobs.progress import Reporter, progress_bar

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Worker:
    """What the loop finds in its process, and the process's place among the data-parallel workers."""

    settings: Settings
    artifacts: Artifacts  # those that the driver has opened
    rank: int
    world_size: int
    device: torch.device
    progress: Reporter


@contextmanager
def fit(
    loop: Callable[[dict[str, Any]], None],
    settings: Settings,
    artifacts: Artifacts,
    kind: str,
    *,
    unit: str,
    weights: str | None = None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run `loop` on the workers, with a progress bar in `unit`, and open what rank 0 hands back.

    Args:
        loop: calls `start_worker` on its argument first and `results` last.
        artifacts: the parents of what is trained.
        kind: what is trained: a field of `TrainingSettings`.
        weights: digest of a pretrained LLM's files.

    Yields:
        The folder of files and the metrics; both are gone after the block.
    """
    # Ray Train resumes a finished run of the same place and name silently, and trains nothing: a new place for each.
    storage = f"{settings.workspace}/.train-{uuid.uuid4().hex[:12]}"
    workers: WorkersSettings = getattr(settings.training, kind)
    config = {"settings": settings.model_dump(mode="json"), "pins": artifacts.pins, "kind": kind, "weights": weights}
    config |= {"prompt": prompt_config(settings)}
    try:
        with progress_bar(kind, unit) as board:
            run_config = RunConfig(name=kind, storage_path=storage)
            result = _trainer(loop, config | {"board": board}, workers, run_config).fit()
        with scratch_folder() as folder:
            result.checkpoint.to_directory(str(folder))
            if not workers.num_workers:  # in-process nothing is uploaded: the checkpoint is the worker's folder
                shutil.rmtree(result.checkpoint.path)
            metrics_file = folder / METRICS_FILE
            metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
            metrics_file.unlink()
            yield folder, metrics
    finally:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
        if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
            filesystem.delete_dir(path)


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
            num_workers=workers.num_workers, use_gpu=bool(workers.num_gpus_per_worker), resources_per_worker=resources
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
    rank = context.get_world_rank()
    return Worker(
        settings,
        open_artifacts(settings, *config["pins"], pins=config["pins"]),
        rank=rank,
        world_size=context.get_world_size(),
        device=torch.device("cuda" if workers.num_gpus_per_worker else "cpu"),
        progress=Reporter(config["board"] if rank == 0 else None),
    )


@contextmanager
def results(worker: Worker, metrics: dict[str, Any]) -> Iterator[Path | None]:
    """Collect rank 0's files and hand them to the driver; every rank must enter.

    Yields:
        A folder to save files in, None on the other ranks.
    """
    if worker.rank:
        yield None
        ray.train.report(metrics)
        return
    folder = Path(tempfile.mkdtemp(prefix="optirag-train-"))  # deleted by Ray once uploaded, or by `fit`
    yield folder
    (folder / METRICS_FILE).write_text(json.dumps(metrics), encoding="utf-8")
    checkpoint = Checkpoint.from_directory(str(folder))
    ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)
