"""Cascade attention: what a packed row of prefixes and suffixes looks at, without a mask and without copies of keys.

    (a) prefix over its own prefix, causal    (b) suffixes over their prefix    (c) each suffix over itself, causal

(b) and (c) have different keys; they are merged by their log-sum-exps in fp32. On CPU (a) and (b) are one kernel call:
its causal mask is aligned at the top left, so of the queries `prefix | suffixes` over the P keys of the prefix, query
i sees the keys <= i, and that is all P for the suffixes behind.

Shapes: T packed tokens, Tq queries, H heads, E head width; B batch, Q queries and K keys of one kernel call.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from optirag_core.engine import flex, varlen
from optirag_core.engine.kernels import attend, merge
from optirag_core.engine.layout import Queries, Span, SuffixBatch

NAME = "optirag_cascade"

DecoderLayer = Any
"""A layer of an LLM of `transformers`, whose parts torch's types do not know."""


def with_cascade(layer: DecoderLayer) -> DecoderLayer:
    """A decoder layer that attends by `cascade` and takes `queries=...`, on the weights of the given one.

    The given layer and its config stay as they are, so the model goes on attending by itself, at any time and in any
    thread.
    """
    AttentionInterface.register(NAME, cascade)
    attention = copy.copy(layer.self_attn)
    attention.config = copy.copy(attention.config)  # all layers of a model share one
    attention.config._attn_implementation = NAME
    ours = copy.copy(layer)
    ours._modules = {**layer._modules, "self_attn": attention}  # a copied module still holds the original's children
    return ours


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it has no types
def cascade(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention_mask: None,
    *,
    queries: Queries,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of `queries` over a packed row, in the form of transformers' attention interface.

    Args:
        q: [1, H, Tq, E] with rotary positions.
        k, v: [1, H or fewer, T, E].

    Returns:
        [1, Tq, H, E].
    """
    if q.is_cuda:
        return _cascade_on_cuda(q, k, v, queries, scaling), None
    outputs = [_attend_span(q, k, v, span, scaling) for span in queries.spans]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), None


def _attend_span(q: Tensor, k: Tensor, v: Tensor, span: Span, scaling: float) -> Tensor:
    """[1, Tq of this group, H, E]."""
    block = q[:, :, span.query_start : span.query_stop]
    keys = slice(span.key_start, span.key_start + span.prefix_keys)
    if not span.prefix_keys:
        return torch.cat([_attend_batch(q, k, v, batch, scaling)[0] for batch in span.batches])[None]
    output, lse = _attend_shared(block, k[:, :, keys], v[:, :, keys], bool(span.prefix_queries), scaling)
    for batch in span.batches:
        start = batch.query_start - span.query_start
        rows = slice(start, start + batch.count * batch.queries)
        own, own_lse = _attend_batch(q, k, v, batch, scaling)
        output[0, rows] = merge(output[0, rows], lse[0, rows], own, own_lse)
    return output


def _attend_shared(q: Tensor, k: Tensor, v: Tensor, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """`attend` for one sequence whose key heads may be fewer: the heads that share keys are a batch, not copies."""
    shared = q.size(1) // k.size(1)
    if shared == 1:
        return attend(q, k, v, causal=causal, scaling=scaling)
    q = q[0].unflatten(0, (-1, shared)).transpose(0, 1)  # [1, H, Q, E] -> [shared, H / shared, Q, E]
    k, v = (states.expand(shared, -1, -1, -1) for states in (k, v))
    output, lse = attend(q, k, v, causal=causal, scaling=scaling)  # [shared, Q, H / shared, E]
    return output.permute(1, 2, 0, 3).flatten(1, 2)[None], lse.permute(1, 2, 0).flatten(1)[None]


def _attend_batch(q: Tensor, k: Tensor, v: Tensor, batch: SuffixBatch, scaling: float) -> tuple[Tensor, Tensor]:
    """Suffixes over themselves: [count * queries, H, E] and [count * queries, H]."""
    own_q = _view(q, batch.query_start, batch.count, batch.queries)
    own_k, own_v = (_view(states, batch.key_start, batch.count, batch.keys) for states in (k, v))
    if own_q.size(1) != own_k.size(1):  # a suffix's own keys are few: copying them costs nothing
        shared = own_q.size(1) // own_k.size(1)
        own_k, own_v = own_k.repeat_interleave(shared, dim=1), own_v.repeat_interleave(shared, dim=1)
    output, lse = attend(own_q, own_k, own_v, causal=batch.queries > 1, scaling=scaling)
    return output.flatten(0, 1), lse.flatten(0, 1)


def _view(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """[1, H, T, E] -> [count, H, length, E], a view."""
    return states[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def _cascade_on_cuda(q: Tensor, k: Tensor, v: Tensor, queries: Queries, scaling: float) -> Tensor:
    if varlen.HAS_VARLEN and q.dtype in (torch.float16, torch.bfloat16):
        return varlen.varlen_cascade(q, k, v, queries, scaling)
    return flex.flex_cascade(q, k, v, queries, scaling)
