"""One Ray Train run: a loop on `ray.train_workers` workers, whose rank 0 hands back a folder of files and metrics."""

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
from ray.actor import ActorHandle
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from optirag_core.artifacts import scratch_folder
from optirag_core.config import Settings, settings_from
from ray_jobs.progress import Reporter, progress_bar

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Worker:
    """This process's place among the data-parallel workers."""

    rank: int
    world_size: int
    device: torch.device


@contextmanager
def fit(
    loop: Callable[[dict[str, Any]], None], settings: Settings, kind: str, *, unit: str
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run `loop` on the workers, with a progress bar in `unit`, and open what rank 0 reported.

    Args:
        loop: calls `start_worker` on its argument first and `report` last.

    Yields:
        The folder of files and the metrics; both are gone after the block.
    """
    # Ray Train resumes a finished run of the same place and name silently, and trains nothing: a new place for each.
    storage = f"{settings.workspace}/.train-{uuid.uuid4().hex[:12]}"
    try:
        with progress_bar(kind, unit) as board:
            result = _trainer(loop, settings, board, RunConfig(name=kind, storage_path=storage)).fit()
        with scratch_folder() as folder:
            result.checkpoint.to_directory(str(folder))
            if not settings.ray.train_workers:  # in-process nothing is uploaded: the checkpoint is the worker's folder
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
    loop: Callable[[dict[str, Any]], None], settings: Settings, board: ActorHandle, run_config: RunConfig
) -> TorchTrainer:
    ray_settings = settings.ray
    resources = {"CPU": ray_settings.cpus_per_train_worker}
    if ray_settings.gpus_per_train_worker:
        resources["GPU"] = ray_settings.gpus_per_train_worker
    return TorchTrainer(
        loop,
        train_loop_config={"settings": settings.model_dump(mode="json"), "board": board},
        scaling_config=ScalingConfig(
            num_workers=ray_settings.train_workers,
            use_gpu=bool(ray_settings.gpus_per_train_worker),
            resources_per_worker=resources,
        ),
        run_config=run_config,
    )


def start_worker(config: Mapping[str, Any]) -> tuple[Settings, Worker, Reporter]:
    """Settings, place and progress reporter of this worker; sets torch's threads."""
    settings = settings_from(config["settings"])
    torch.set_num_threads(settings.ray.torch_threads)
    context = ray.train.get_context()
    device = torch.device("cuda" if settings.ray.gpus_per_train_worker else "cpu")
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    return settings, worker, Reporter(config["board"] if worker.rank == 0 else None)


@contextmanager
def report(worker: Worker, metrics: dict[str, Any]) -> Iterator[Path | None]:
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
