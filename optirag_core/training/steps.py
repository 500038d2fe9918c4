"""Optimiser steps of a tuning run, planned before the first: batches, learning rate, where epochs end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from optirag_core.config.llm import TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.packing import Sample, plan_batches


@dataclass(frozen=True)
class PlannedStep:
    """One optimiser step."""

    batches: Sequence[Sequence[Sequence[Sample]]]  # of each worker: batches_per_step batches
    rate: float  # factor of the learning rate
    ends_epoch: bool  # of the main phase, so that these weights may be the ones kept


def plan_steps(
    cold_start_samples: Sequence[Sample],
    samples: Sequence[Sample],
    settings: TuningSettings,
    *,
    seed: int,
    world_size: int,
) -> list[PlannedStep]:
    """The cold-start phase, then the main one; batches that do not fill a phase's last step are left out.

    Raises:
        DataError: there are fewer batches than one step takes.
    """
    generator = torch.Generator().manual_seed(seed)
    cold, _ = _phase([cold_start_samples] * settings.cold_start_epochs, settings, generator, world_size)
    main, ends = _phase([samples] * settings.epochs, settings, generator, world_size)
    if not cold and not main:
        raise DataError(
            f"too few batches for one step of {world_size} workers with {settings.batches_per_step} each: lower "
            "batch_tokens or batches_per_step of llm.scratch or llm.pretrained"
        )
    steps = [*cold, *main][: settings.max_steps]
    num_cold = min(len(cold), len(steps))
    phases = [num_cold, len(steps) - num_cold] if settings.restart_learning_rate else [len(steps)]
    rates = [rate for num_steps in phases for rate in warmup_cosine(num_steps, settings.warmup_share)]
    last = len(steps) - 1
    return [
        PlannedStep(batches, rate, number - num_cold + 1 in ends or number == last)
        for number, (batches, rate) in enumerate(zip(steps, rates, strict=True))
    ]


def warmup_cosine(num_steps: int, warmup_share: float) -> list[float]:
    """Factor of the learning rate at every step: linear up to 1, then half a cosine towards 0."""
    warmup = max(1, int(num_steps * warmup_share))
    rest = max(1, num_steps - warmup)
    rising = [(step + 1) / warmup for step in range(min(warmup, num_steps))]
    return rising + [0.5 * (1 + math.cos(math.pi * step / rest)) for step in range(num_steps - warmup)]


def _phase(
    epochs: Sequence[Sequence[Sample]], settings: TuningSettings, generator: torch.Generator, world_size: int
) -> tuple[list[list[list[list[Sample]]]], set[int]]:
    """Batches of each step and worker, and how many steps are done where each epoch ends."""
    batches: list[list[Sample]] = []
    per_step = world_size * settings.batches_per_step
    ends = set()
    for samples in epochs:
        lengths = [sample.num_tokens for sample in samples]
        planned = plan_batches(lengths, settings.batch_tokens, generator)
        batches += [[samples[index] for index in batch] for batch in planned]
        ends.add(len(batches) // per_step)
    starts = range(0, len(batches) - per_step + 1, per_step)
    steps = [[batches[start + rank : start + per_step : world_size] for rank in range(world_size)] for start in starts]
    return steps, ends - {0}
