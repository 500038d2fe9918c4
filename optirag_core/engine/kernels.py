"""Softmax attention that also returns its log-sum-exp, and the merging of two by theirs.

Shapes: B batch, H heads, Q queries, K keys, E head width.
"""

import math

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """Softmax attention with its log-sum-exp; the kernel behind torch's CPU attention where it is there.

    Args:
        q: [B, H, Q, E].
        k, v: [B, H, K, E].
        causal: query i sees keys <= i.

    Returns:
        [B, Q, H, E] and [B, Q, H], both dense in this order for the kernel.
    """
    kernel = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if kernel is None or q.is_cuda:
        return attend_plain(q, k, v, causal=causal, scaling=scaling)
    output, lse = kernel(q, k, v, 0.0, causal, scale=scaling)
    return output.transpose(1, 2), lse.transpose(1, 2)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """`attend` by its definition, in fp32."""
    logits = scaling * q.float() @ k.float().mT  # [B, H, Q, K]
    if causal:
        seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
        logits = logits.masked_fill(~seen, -math.inf)
    output = (logits.softmax(-1) @ v.float()).to(q.dtype)
    return output.transpose(1, 2), logits.logsumexp(-1).transpose(1, 2)


def merge(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> Tensor:
    """Attention over two disjoint sets of keys from the attention over each.

    Args:
        a, b: [..., E].
        lse_a, lse_b: [...], -inf for no keys.
    """
    share = torch.sigmoid(lse_b - lse_a)[..., None]  # of b; fp32
    return torch.lerp(a.float(), b.float(), share).to(a.dtype)
