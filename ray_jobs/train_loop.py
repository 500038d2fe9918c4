"""One Ray Train run: a loop on `ray.train_workers` workers, whose rank 0 hands back a folder of files and metrics."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    with progress_bar(kind, unit) as board:
        result = _trainer(loop, settings, kind, board).fit()
    with scratch_folder() as folder:
        result.checkpoint.to_directory(str(folder))
        metrics_file = folder / METRICS_FILE
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
        metrics_file.unlink()
        yield folder, metrics
    result.filesystem.delete_dir(result.path)


def _trainer(loop: Callable[[dict[str, Any]], None], settings: Settings, kind: str, board: ActorHandle) -> TorchTrainer:
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
        # A finished name would resume silently and train nothing: every run has its own.
        run_config=RunConfig(name=f"{kind}-{uuid.uuid4().hex[:12]}", storage_path=_storage(settings.workspace)),
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
    with scratch_folder() as folder:
        yield folder
        (folder / METRICS_FILE).write_text(json.dumps(metrics), encoding="utf-8")
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(str(folder)))


def _storage(workspace: str) -> str:
    """Where Ray Train keeps its checkpoints while it runs."""
    base = workspace if "://" in workspace else str(Path(workspace).absolute())
    return f"{base}/.train"
