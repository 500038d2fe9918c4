"""The one training loop: optimiser steps of accumulated batches, on any number of workers, from a checkpoint on.

    for taken in optimize(training, loss_of, steps, seed=seed, checkpoints=checkpoints):
        if taken.step.ends_epoch:
            ...  # validate, keep the best weights, stop

What is trained, and what ends it, is the caller's: the retriever, the LLM and the exit heads differ in nothing else.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from optirag_core.errors import ConfigError
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.state import Training
from optirag_core.training.workers import gradient_scale, synchronized

Batch = TypeVar("Batch")
RNG_STEPS = 2**20
"""Seeds of dropout are numbered by step and worker; a training takes fewer steps than this."""
SEEDS = 2**63
"""Torch takes no larger ones."""


@dataclass(frozen=True)
class Step(Generic[Batch]):
    """One optimiser step, the same for all workers: each takes its share of every batch."""

    batches: Sequence[Batch]  # their losses' mean is the step's
    rate: float = 1.0  # factor of the learning rates
    ends_epoch: bool = False


@dataclass(frozen=True)
class Taken(Generic[Batch]):
    """A step that was taken."""

    number: int  # from 1
    step: Step[Batch]
    loss: float  # of all workers, before the step
    epoch_loss: float  # mean over the epoch's steps so far


def optimize(
    training: Training,
    loss_of: Callable[[Batch], Tensor],
    steps: Iterable[Step[Batch]],
    *,
    seed: int,
    max_gradient_norm: float | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Taken[Batch]]:
    """Take the steps one by one; those that a checkpoint holds are skipped.

    A step draws its random numbers (dropout) from `seed`, its number and the worker, so that a resumed training is the
    undisturbed one. A checkpoint is written, when it is due, after the caller is done with the step.

    Args:
        loss_of: a batch -> this worker's part of its loss, a scalar with a graph; the parts add up to the batch's.
        steps: the same at every start.
        max_gradient_norm: longer gradients are scaled down to it.

    Raises:
        ConfigError: the loss is not finite any more.
    """
    module, workers = training.module, training.workers
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in training.optimizers]
    done = checkpoints.restore(training) if checkpoints else 0
    for number, step in enumerate(steps, start=1):
        if number <= done:
            continue
        torch.manual_seed(((seed * RNG_STEPS + number) * workers.size + workers.rank) % SEEDS)
        loss = _accumulate(training, loss_of, step.batches)
        if max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(trained, max_gradient_norm)
        for optimizer, initial in zip(training.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = rate * step.rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # Rank 0's clock decides for all, as all take part in a checkpoint.
        due = checkpoints is not None and workers.rank == 0 and checkpoints.due
        total, is_due = workers.sum(torch.stack([loss, torch.full_like(loss, float(due))])).tolist()
        if not math.isfinite(total):
            raise ConfigError(
                f"{training.name}: the loss became {total} at step {number:,}; lower the learning_rate of its section"
            )
        yield Taken(number, step, total, training.curve.add(total))
        if step.ends_epoch:
            training.curve.end_epoch()
        if checkpoints and is_due:
            checkpoints.save(training, number)


def _accumulate(training: Training, loss_of: Callable[[Batch], Tensor], batches: Sequence[Batch]) -> Tensor:
    """Add the gradients of the batches' mean loss; return this worker's part of it."""
    total = torch.zeros((), device=training.workers.device)
    scale = gradient_scale(training.module, training.workers)
    training.module.train()
    for number, batch in enumerate(batches, start=1):
        with synchronized(training.module, now=number == len(batches)):
            loss = loss_of(batch) / len(batches)
            (scale * loss).backward()
        total += loss.detach()
    return total
