"""Optimiser steps of a tuning run, planned before the first: batches, learning rate, where epochs end."""

import math
from collections.abc import Sequence

import torch

from optirag_core.config.llm import TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.loop import Step
from optirag_core.training.packing import Sample, plan_batches


def plan_steps(
    cold_start_samples: Sequence[Sample],
    samples: Sequence[Sample],
    settings: TuningSettings,
    *,
    seed: int,
) -> list[Step[Sequence[Sample]]]:
    """The cold-start phase, then the main one; batches that do not fill a phase's last step are left out.

    Raises:
        DataError: there are fewer batches than one step takes.
    """
    generator = torch.Generator().manual_seed(seed)
    cold, _ = _phase([cold_start_samples] * settings.cold_start_epochs, settings, generator)
    main, ends = _phase([samples] * settings.epochs, settings, generator)
    if not cold and not main:
        raise DataError(
            f"too few batches for one step of {settings.batches_per_step}: lower batch_tokens or batches_per_step of "
            "llm.scratch or llm.pretrained"
        )
    steps = [*cold, *main][: settings.max_steps]
    num_cold = min(len(cold), len(steps))
    phases = [num_cold, len(steps) - num_cold] if settings.restart_learning_rate else [len(steps)]
    rates = [rate for num_steps in phases for rate in warmup_cosine(num_steps, settings.warmup_share)]
    last = len(steps) - 1
    return [
        Step(batches, rate, number - num_cold + 1 in ends or number == last)
        for number, (batches, rate) in enumerate(zip(steps, rates, strict=True))
    ]


def warmup_cosine(num_steps: int, warmup_share: float) -> list[float]:
    """Factor of the learning rate at every step: linear up to 1, then half a cosine towards 0."""
    warmup = max(1, int(num_steps * warmup_share))
    rest = max(1, num_steps - warmup)
    rising = [(step + 1) / warmup for step in range(min(warmup, num_steps))]
    return rising + [0.5 * (1 + math.cos(math.pi * step / rest)) for step in range(num_steps - warmup)]


def _phase(
    epochs: Sequence[Sequence[Sample]], settings: TuningSettings, generator: torch.Generator
) -> tuple[list[list[list[Sample]]], set[int]]:
    """Batches of each step, and how many steps are done where each epoch ends."""
    batches: list[list[Sample]] = []
    per_step = settings.batches_per_step
    ends = set()
    for samples in epochs:
        lengths = [sample.num_tokens for sample in samples]
        planned = plan_batches(lengths, settings.batch_tokens, generator)
        batches += [[samples[index] for index in batch] for batch in planned]
        ends.add(len(batches) // per_step)
    starts = range(0, len(batches) - per_step + 1, per_step)
    return [batches[start : start + per_step] for start in starts], ends - {0}
