"""Optimiser steps and FLOPs of each job, from lengths alone.

A row of a training batch costs, forward, per layer the cost model's FLOPs per token (`engine.cost`) and 4 q T^2 for
attention, as the masked kernels compute all T x T pairs; the LM head where shown ratings are predicted. Backward is
twice as much for weights that learn, and once where only the states' gradients are needed, as for a LoRA's frozen ones;
attention is backward twice as much in both. Recompute adds a forward.

Shapes: T tokens of a row.
"""

import math
from dataclasses import dataclass

import torch

from optirag_core.config.llm import TuningSettings
from optirag_core.engine.cost import ModelShape, packed_cost
from optirag_core.planning.counts import Counts
from optirag_core.planning.llm import TunedModel, Way
from optirag_core.training.samples import VALIDATION_USERS


@dataclass(frozen=True)
class TuningWork:
    """What a tuning computes."""

    steps: int
    flops: float  # of all workers
    busiest: float  # FLOPs of the worker with the most rows
    rows: int  # of a batch


@dataclass(frozen=True)
class RowCost:
    """FLOPs of one row of a training batch."""

    forward: float
    training: float  # forward and backward


def row_cost(
    shape: ModelShape, model: TunedModel, way: Way, tokens: float, head_flops: float, *, recompute: bool
) -> RowCost:
    """
    Args:
        tokens: T.
        head_flops: of the LM head at the row's shown ratings.
    """
    linear = shape.num_layers * shape.layer_flops * tokens
    attention = shape.num_layers * 4 * shape.query_width * tokens**2
    adapters = 2 * model.num_trained * tokens if way == "lora" else 0.0
    forward = linear + attention + adapters
    passes = 2 if way == "lora" else 3
    training = passes * (linear + head_flops) + 3 * (attention + adapters)
    return RowCost(forward, training + (forward if recompute else 0.0))


def tuning_work(
    shape: ModelShape, model: TunedModel, way: Way, settings: TuningSettings, counts: Counts,
    *, vocab_size: int, num_workers: int, recompute: bool,
) -> TuningWork:  # fmt: skip
    """All phases and validations; batches that do not fill a step are left out, as in `training.steps`."""
    left = math.inf if settings.max_steps is None else settings.max_steps
    candidates = counts.candidates * counts.suffix_tokens
    phases = [
        (counts.cold_prefix_tokens + candidates, settings.cold_start_epochs),
        (counts.row_tokens, settings.epochs),
    ]
    head = 2 * shape.width * vocab_size * counts.ratings if settings.history_loss_weight else 0.0
    total = busiest = 0.0
    steps = rows = 0
    for tokens, epochs in phases:
        rows = rows_per_batch(settings.batch_tokens, tokens)
        of_phase = min(left, math.ceil(counts.prompts / rows) * epochs // settings.batches_per_step)
        left, steps = left - of_phase, steps + int(of_phase)
        row = row_cost(shape, model, way, tokens, head, recompute=recompute).training
        prompts = min(of_phase * settings.batches_per_step * rows, epochs * counts.prompts)
        total += prompts * row
        busiest += prompts * row * math.ceil(rows / num_workers) / rows
    validation = VALIDATION_USERS * row_cost(shape, model, way, counts.row_tokens, 0.0, recompute=False).forward
    shared = validation * (1 + settings.epochs) if settings.select_epoch else 0.0
    # The last validation is rank 0's alone.
    return TuningWork(steps, total + shared + validation, busiest + shared / num_workers + validation, rows)


def rows_per_batch(batch_tokens: int, tokens: float) -> int:
    """Prompts of a batch."""
    return max(1, int(batch_tokens // tokens))


def busiest_tokens(batch_tokens: int, tokens: float, longest: int, num_workers: int) -> float:
    """Tokens of the worker that has most of a batch, whatever number of rows up to the usual one it has.

    A row that is longer than `batch_tokens` is a batch of its own.
    """
    rows = range(2, rows_per_batch(batch_tokens, tokens) + 1)
    return max([longest, *(math.ceil(number / num_workers) * min(longest, batch_tokens / number) for number in rows)])


def scoring_flops(
    shape: ModelShape, prompts: float, candidates: float, prefix_tokens: float, suffix_tokens: float
) -> float:
    """Of packed groups at full depth."""
    number = max(1, round(candidates))
    column = torch.ones(number, dtype=torch.int64)
    cost = packed_cost(
        shape, torch.zeros_like(column), column * round(prefix_tokens), column * max(1, round(suffix_tokens)),
        column * shape.num_layers,
    )  # fmt: skip
    return prompts * cost.flops


def heads_flops(width: int, num_heads: int, answers: int, epochs: int, vocab_size: int) -> float:
    """Of training the exit heads: forward and backward of the rows that each compares.

    Args:
        vocab_size: of `loss: vocabulary`, otherwise 0.
    """
    return 3.0 * epochs * answers * num_heads * 2 * width * (2 + vocab_size)
