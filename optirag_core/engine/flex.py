"""Cascade attention by FlexAttention: one call with a block mask, for GPUs in fp32 and as a cross-check.

Shapes: T packed tokens, Tq queries, H heads, E head width.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from optirag_core.engine.layout import Queries


def flex_cascade(q: Tensor, k: Tensor, v: Tensor, queries: Queries, scaling: float) -> Tensor:
    """As `attention.cascade`: [1, H, Tq, E] and [1, H or fewer, T, E] -> [1, Tq, H, E]."""
    call = _compiled() if q.is_cuda else flex_attention  # its CPU compilation takes most of a minute
    mask = queries.cached(RowMask, q.device).blocks
    return call(q, k, v, block_mask=mask, scale=scaling, enable_gqa=q.size(1) != k.size(1)).transpose(1, 2)


class RowMask:
    """A query sees what stands before it in the row, of its own suffix and of its group's prefix."""

    def __init__(self, blocks: BlockMask) -> None:
        self.blocks = blocks

    @classmethod
    def of(cls, queries: Queries, device: torch.device) -> "RowMask":
        groups: list[int] = []  # of each token
        suffixes: list[int] = []  # of each token, 0 for a prefix
        number = 0
        for group, span in enumerate(queries.spans):
            suffixes += [0] * span.prefix_keys
            for batch in span.batches:
                for number in range(number + 1, number + 1 + batch.count):  # noqa: B020 - counts on across batches
                    suffixes += [number] * batch.keys
            groups += [group] * (len(suffixes) - len(groups))
        group_of, suffix_of = torch.tensor(groups, device=device), torch.tensor(suffixes, device=device)
        rows = torch.arange(len(groups), device=device) if queries.rows is None else queries.rows.to(device)

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            row = rows[query]
            shared = (suffix_of[key] == 0) | (suffix_of[key] == suffix_of[row])
            return (group_of[key] == group_of[row]) & shared & (key <= row)

        return cls(create_block_mask(sees, None, None, len(rows), len(groups), device=device))


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
