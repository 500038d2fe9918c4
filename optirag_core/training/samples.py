"""Prompts of a split with the answers to their candidates: what the LLM learns from."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from optirag_core.data.splits import requests_for
from optirag_core.data.spread import spread
from optirag_core.prompting.assembly import PromptAssembler, requests_from
from optirag_core.training.packing import Sample

VALIDATION_USERS = 500
"""Enough for an AUC within about 0.02, and to tell epochs apart (`select_epoch`)."""


def labelled_samples(
    assembler: PromptAssembler,
    interactions: pa.Table,
    split: str,
    *,
    similar: bool = True,
    max_users: int | None = None,
) -> list[Sample]:
    """One sample per request of the split whose prompt fits.

    Args:
        similar: False leaves out the similar users.
        max_users: at most this many users, spread evenly over the table.
    """
    requests = spread(requests_for(interactions, split), max_users)
    labels: Sequence[Sequence[int]] = requests["labels"].to_pylist()
    items = requests["item_ids"].to_pylist()
    samples = []
    prompts = assembler.assemble(requests_from(requests), similar=similar)
    for result, asked, answers in zip(prompts, items, labels, strict=True):
        if result.prompt is not None:
            known = answers_to(result.candidates, asked, answers)
            samples.append(Sample(result.prompt.group, known, result.prompt.rating_positions))
    return samples


def answers_to(candidates: Sequence[str], asked: Sequence[str], answers: Sequence[int]) -> list[int]:
    """Of the answers to all items asked, those to the candidates that fit into the prompt."""
    answer_of = dict(zip(asked, answers, strict=True))
    return [answer_of[item_id] for item_id in candidates]


def few_shots(samples: Sequence[Sample], shots: int | None, *, seed: int) -> Sequence[Sample]:
    """At most `shots` of the samples, drawn at random, in their order; None: all."""
    if shots is None or shots >= len(samples):
        return samples
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:shots]
    return [samples[index] for index in drawn.sort().values.tolist()]
