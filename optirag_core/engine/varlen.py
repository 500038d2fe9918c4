"""Cascade attention by torch's variable-length flash kernels: three calls for a whole packed row (CUDA, 16 bit).

Shapes: T packed tokens, Tq queries, H heads, E head width.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from optirag_core.engine.kernels import merge
from optirag_core.engine.layout import Queries

try:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn
except ImportError:  # private in some builds of torch
    HAS_VARLEN = False
else:
    HAS_VARLEN = True


@dataclass(frozen=True)
class VarlenSequences:
    """Some tokens of a row, cut into sequences."""

    tokens: Tensor  # [Ts] index into the row
    cu_seqlens: Tensor  # [number of sequences + 1], int32
    max_seqlen: int

    @classmethod
    def of(cls, ranges: Iterable[range], device: torch.device) -> "VarlenSequences":
        ranges = list(ranges)
        lengths = [len(tokens) for tokens in ranges]
        offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        tokens = torch.tensor([token for tokens in ranges for token in tokens], dtype=torch.int64)
        return cls(tokens.to(device), offsets.to(device), max(lengths, default=0))


@dataclass(frozen=True)
class Cascade:
    """The sequences of the three calls."""

    prefix_queries: VarlenSequences
    prefix_keys: VarlenSequences
    suffix_queries: VarlenSequences  # one sequence per group
    own_queries: VarlenSequences  # the same tokens, one sequence per suffix
    own_keys: VarlenSequences

    @classmethod
    def of(cls, queries: Queries, device: torch.device) -> "Cascade":
        spans = queries.spans
        batches = [batch for span in spans for batch in span.batches]

        def sequences(ranges: Iterable[range]) -> VarlenSequences:
            return VarlenSequences.of(ranges, device)

        return cls(
            prefix_queries=sequences(
                range(s.query_start, s.query_start + s.prefix_queries) for s in spans if s.prefix_queries
            ),
            prefix_keys=sequences(range(s.key_start, s.key_start + s.prefix_keys) for s in spans),
            suffix_queries=sequences(range(s.query_start + s.prefix_queries, s.query_stop) for s in spans),
            own_queries=sequences(own for b in batches for own in _each(b.query_start, b.count, b.queries)),
            own_keys=sequences(own for b in batches for own in _each(b.key_start, b.count, b.keys)),
        )


def varlen_cascade(q: Tensor, k: Tensor, v: Tensor, queries: Queries, scaling: float) -> Tensor:
    """As `attention.cascade`: [1, H, Tq, E] and [1, H or fewer, T, E] -> [1, Tq, H, E]."""
    plan = queries.cached(Cascade, q.device)
    q, k, v = (states[0].transpose(0, 1) for states in (q, k, v))  # [tokens, heads, E]
    output = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if plan.prefix_queries.max_seqlen:
        output[plan.prefix_queries.tokens] = _call(q, k, v, plan.prefix_queries, plan.prefix_keys, True, scaling)[0]
    over, over_lse = _call(q, k, v, plan.suffix_queries, plan.prefix_keys, False, scaling)
    own, own_lse = _call(q, k, v, plan.own_queries, plan.own_keys, True, scaling)
    over_lse = over_lse.masked_fill(over_lse.isinf(), -math.inf)  # an empty prefix
    output[plan.suffix_queries.tokens] = merge(own, own_lse, over.nan_to_num(), over_lse)
    return output[None]


def _call(
    q: Tensor, k: Tensor, v: Tensor, queries: VarlenSequences, keys: VarlenSequences, causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """One kernel call; causal is aligned at the bottom right, so a last token alone sees its whole suffix."""
    if not keys.max_seqlen:
        own = q[queries.tokens]
        return torch.zeros_like(own), own.new_full(own.shape[:2], -math.inf, dtype=torch.float32)
    output, lse = varlen_attn(
        q[queries.tokens], k[keys.tokens], v[keys.tokens],
        queries.cu_seqlens, keys.cu_seqlens, queries.max_seqlen, keys.max_seqlen,
        return_aux=AuxRequest(lse=True), scale=scaling, window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=q.size(1) != k.size(1),
    )  # fmt: skip
    return output, lse.mT if lse.size(0) == q.size(1) else lse  # the kernel's [H, Tq] -> [Tq, H]


def _each(start: int, count: int, length: int) -> Iterator[range]:
    """The tokens of each suffix of a batch."""
    return (range(first, first + length) for first in range(start, start + count * length, length))
