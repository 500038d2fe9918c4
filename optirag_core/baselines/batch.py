"""What every CTR model reads: categorical fields of a pair, and what the user has rated before it.

Shapes: B pairs, F fields, L history entries.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Pairs as ids; 0 is unknown in every field, and padding in a history."""

    fields: Tensor  # [B, F] int64, each counted from 0; the first is the user, the second the item
    history_items: Tensor  # [B, L] int64 ids of the item field, oldest first, padded at the end
    history_answers: Tensor  # [B, L] int64: 1 not liked, 2 liked, 0 padding
    history_lengths: Tensor  # [B] int64, 0 where nothing is known


@dataclass(frozen=True)
class Vocabularies:
    """How many ids each part of a batch has, the 0 counted in."""

    fields: tuple[int, ...]  # F
    max_history: int  # L
    num_answers: int = 3
