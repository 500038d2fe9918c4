"""What devices can do: GPUs as NVIDIA's data sheets say, this machine's CPU as measured on the spot."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import psutil
import torch

from optirag_core.config.run import ActorsSettings, WorkersSettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ConfigError

GIB = 2**30
HOUR_S = 3600
GPU_TRAINING, GPU_SCORING = 0.40, 0.50
"""Assumed shares of the peak: what well-kept trainers of 7B models report is 0.35 to 0.55; not measured here."""
CPU_SHARE = 0.75
"""Of the GEMM rate, which the engine reaches by 0.64 to 0.76, and SmolLM2's tuning by 0.85 (`benchmarks/results/`)."""


@dataclass(frozen=True)
class Accelerator:
    """One device of a worker."""

    name: str  # Ray's accelerator type, or cpu
    memory_gib: float
    peak_flops: Mapping[str, float]  # dtype -> FLOP/s of dense matrix products
    training_utilization: float = GPU_TRAINING
    scoring_utilization: float = GPU_SCORING


ACCELERATORS = {
    name: Accelerator(name, memory_gib, {"bfloat16": bfloat16, "float32": float32})
    for name, memory_gib, bfloat16, float32 in (
        ("A100", 40, 312e12, 19.5e12),  # Ray's name for both sizes: the smaller one
        ("A100-40G", 40, 312e12, 19.5e12),
        ("A100-80G", 80, 312e12, 19.5e12),
        ("H100", 80, 989e12, 67e12),  # SXM
        ("H200", 141, 989e12, 67e12),  # SXM
        ("L4", 24, 121e12, 30.3e12),
    )
}
"""By Ray's accelerator types (`ray.util.accelerators`). Float32 is without TF32, which torch leaves off."""


def accelerator(name: str | None) -> Accelerator:
    """
    Raises:
        ConfigError: no figures of this type are known, or no type is given.
    """
    if name not in ACCELERATORS:
        raise ConfigError(
            f"there are no figures of accelerator type {name}: set plan.accelerator_type to the one of "
            f"{', '.join(ACCELERATORS)} that comes nearest, and plan.gpu_memory_gib"
        )
    return ACCELERATORS[name]


@cache
def measured_cpu(threads: int) -> Accelerator:
    """This machine's CPU: a float32 GEMM of `threads` threads, a tenth of a second, and its main memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    size, times = 1024, []
    matrix = torch.ones(size, size)
    for _ in range(7):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    rate = 2 * size**3 / min(times)  # the best of them: what else runs here does not count
    memory_gib = psutil.virtual_memory().total / GIB
    # bfloat16 is 6 to 8 times slower on CPUs without units for it.
    return Accelerator("cpu", memory_gib, {"float32": rate, "bfloat16": rate / 7}, CPU_SHARE, CPU_SHARE)


@dataclass(frozen=True)
class Device:
    """What one worker or scorer computes with."""

    accelerator: Accelerator
    share: float  # of one accelerator
    room: float | None  # bytes that may be filled; None: unknown

    @property
    def is_gpu(self) -> bool:
        return self.accelerator.name != "cpu"

    def hours(self, flops: float, dtype: torch.dtype, utilization: float) -> float:
        """Time for FLOPs in a type."""
        peak = self.accelerator.peak_flops[str(dtype).removeprefix("torch.")]
        return flops / (peak * self.share * utilization) / HOUR_S

    def holds(self, memory: float) -> bool:
        return self.room is None or memory <= self.room

    def shortage(self, memory: float, process: str) -> str | None:
        """That the bytes of a process do not fit, in words; None where they do."""
        if self.room is None or memory <= self.room:
            return None
        return (
            f"DOES NOT FIT: it needs {memory / GIB:.1f} GiB per {process}, and {self.accelerator.name} has "
            f"{self.room / GIB:.1f} GiB to fill"
        )


def device_of(settings: Settings, processes: WorkersSettings | ActorsSettings, cpu: Accelerator) -> Device:
    """The device of a training's workers, or of the scorers.

    Args:
        cpu: with the process's threads, where no GPU is reserved. The processes of a local Ray share its memory, and
            its cores where they are fewer than all threads; a cluster's memory is unknown.

    Raises:
        ConfigError: a GPU is reserved, of no type or of one without figures.
    """
    plan = settings.plan
    if isinstance(processes, ActorsSettings):
        number, gpus = processes.num_scorers, processes.num_gpus_per_scorer
    else:
        number, gpus = max(1, processes.num_workers), processes.num_gpus_per_worker
    if not gpus:
        if settings.ray.address != "local":
            return Device(cpu, 1.0, None)
        threads = psutil.cpu_count() or 1
        share = min(1.0, threads / (number * min(processes.torch_threads, threads)))
        return Device(cpu, share, cpu.memory_gib * GIB * plan.memory_share / number)
    gpu = accelerator(plan.accelerator_type or processes.accelerator_type)
    share = min(1.0, gpus)
    return Device(gpu, share, (plan.gpu_memory_gib or gpu.memory_gib) * GIB * plan.memory_share * share)
