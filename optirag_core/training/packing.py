"""Training batches in which one prefix carries all its labelled candidates.

A row is `prefix | suffix 1 | ... | suffix n`: suffixes see the prefix and themselves, not each other, and their
positions restart behind the prefix. Scores are those of n separate prompts at the price of one prefix.

Shapes: B rows, T padded tokens, A answers of the batch, R shown ratings of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from optirag_core.engine.groups import UserGroup

BATCHES_PER_BUCKET = 32
"""Samples are sorted by length within this many batches: little padding, and batches stay random."""


@dataclass(frozen=True)
class Sample:
    """A user group with the answers to its candidates."""

    group: UserGroup
    labels: Sequence[int]  # n, 1 liked
    rating_positions: Sequence[int]  # prefix positions of the shown ratings

    @property
    def num_tokens(self) -> int:
        return len(self.group.prefix) + sum(map(len, self.group.suffixes))


@dataclass(frozen=True)
class PackedBatch:
    """Tensors of one training step."""

    ids: Tensor  # [B, T]
    positions: Tensor  # [B, T]
    mask: Tensor  # [B, 1, T, T] bool, True where a query may look
    answer_rows: Tensor  # [A] row of each suffix
    answer_columns: Tensor  # [A] last token of each suffix
    labels: Tensor  # [A] float
    rating_rows: Tensor  # [R]
    rating_columns: Tensor  # [R] position of the rating's token

    def to(self, device: torch.device) -> Self:
        return type(self)(*(tensor.to(device) for tensor in vars(self).values()))


def pack(samples: Sequence[Sample]) -> PackedBatch:
    """Lay out samples as rows of one batch."""
    size = max(sample.num_tokens for sample in samples)
    ids = torch.zeros(len(samples), size, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    segments = torch.full_like(ids, -1)  # 0 prefix, 1..n suffixes, -1 padding
    answers, ratings = [], []
    for row, sample in enumerate(samples):
        length = len(sample.group.prefix)
        _place(ids, positions, segments, row, 0, 0, 0, sample.group.prefix)
        ratings += [(row, column) for column in sample.rating_positions]
        start = length
        for number, suffix in enumerate(sample.group.suffixes, start=1):
            _place(ids, positions, segments, row, start, length, number, suffix)
            start += len(suffix)
            answers.append((row, start - 1))
    query, key = segments[:, :, None], segments[:, None, :]  # [B, T, 1], [B, 1, T]
    mask = torch.ones(size, size, dtype=torch.bool).tril() & ((key == 0) | (key == query))  # [B, T, T]
    answer_rows, answer_columns = torch.tensor(answers).T
    rating_rows, rating_columns = torch.tensor(ratings, dtype=torch.int64).reshape(-1, 2).T
    labels = torch.tensor([label for sample in samples for label in sample.labels], dtype=torch.float32)
    return PackedBatch(
        ids, positions, mask[:, None], answer_rows, answer_columns, labels, rating_rows, rating_columns
    )  # fmt: skip


def plan_batches(lengths: Sequence[int], batch_tokens: int, generator: torch.Generator) -> list[list[int]]:
    """Random batches of samples of similar length.

    Args:
        lengths: tokens of each sample.
        batch_tokens: rows x longest row of a batch stay at or under it (a longer sample is a batch of its own).

    Returns:
        Indices of each batch; every sample is in exactly one.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    mean = max(1.0, sum(lengths) / max(1, len(lengths)))
    bucket = max(1, int(BATCHES_PER_BUCKET * batch_tokens / mean))
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket):
        batch: list[int] = []
        for index in sorted(order[start : start + bucket], key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[number] for number in shuffled]


def _place(
    ids: Tensor, positions: Tensor, segments: Tensor,
    row: int, start: int, first_position: int, segment: int, tokens: Sequence[int],
) -> None:  # fmt: skip
    stop = start + len(tokens)
    ids[row, start:stop] = torch.as_tensor(tokens)
    positions[row, start:stop] = torch.arange(first_position, first_position + len(tokens))
    segments[row, start:stop] = segment
