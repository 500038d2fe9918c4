"""Cascade attention against softmax attention with a mask, written by its definition."""

import math

import pytest
import torch
from torch import Tensor

from optirag_core.engine import attention, varlen
from optirag_core.engine.attention import cascade
from optirag_core.engine.flex import flex_cascade
from optirag_core.engine.kernels import attend_plain
from optirag_core.engine.layout import Layout, PackedGroup, Queries

LAYOUT = Layout(
    (
        PackedGroup(user_group=0, prefix=70, suffixes=(1, 1, 4, 9, 9), candidates=(0, 1, 2, 3, 4)),
        PackedGroup(user_group=1, prefix=1, suffixes=(3,), candidates=(0,)),
        PackedGroup(user_group=2, prefix=33, suffixes=(2,) * 6, candidates=tuple(range(6))),
    )
)
KINDS = ("all_queries", "last_queries", "suffix_queries")
HEADS = ((4, 4), (4, 2), (6, 1))
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def states(queries: Queries, layout: Layout, heads: int, key_heads: int, width: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    asked = layout.num_tokens if queries.rows is None else len(queries.rows)

    def random(count: int, tokens: int) -> Tensor:  # heads inside, as a projection gives them
        return torch.randn(1, tokens, count, width, generator=generator).transpose(1, 2)

    return [random(heads, asked), random(key_heads, layout.num_tokens), random(key_heads, layout.num_tokens)]


def masked(q: Tensor, k: Tensor, v: Tensor, layout: Layout, rows: Tensor | None, scaling: float) -> Tensor:
    """[1, Tq, H, E] with a [Tq, T] mask."""
    owner = [
        (index, suffix)
        for index, group in enumerate(layout.groups)
        for suffix, length in enumerate((group.prefix, *group.suffixes))
        for _ in range(length)
    ]
    sees = torch.tensor(
        [
            [mine[0] == other[0] and other[1] in (0, mine[1]) and key <= row for key, other in enumerate(owner)]
            for row, mine in enumerate(owner)
        ]
    )
    sees = sees if rows is None else sees[rows]
    k, v = (states.repeat_interleave(q.size(1) // k.size(1), dim=1) for states in (k, v))
    logits = (scaling * q @ k.mT).masked_fill(~sees, -math.inf)
    return (logits.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "key_heads"), HEADS)
@pytest.mark.parametrize("plain", [False, True])
def test_cascade_equals_masked_attention(kind, heads, key_heads, plain, monkeypatch):
    if plain:
        monkeypatch.setattr(attention, "attend", attend_plain)
    queries = getattr(LAYOUT, kind)
    q, k, v = states(queries, LAYOUT, heads, key_heads)

    output, _ = cascade(torch.nn.Module(), q, k, v, None, queries=queries, scaling=0.3)

    assert torch.allclose(output, masked(q, k, v, LAYOUT, queries.rows, 0.3), atol=2e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "key_heads"), HEADS)
def test_flex_attention_equals_masked_attention(kind, heads, key_heads):
    queries = getattr(LAYOUT, kind)
    q, k, v = states(queries, LAYOUT, heads, key_heads)

    output = flex_cascade(q, k, v, queries, 0.3)

    assert torch.allclose(output, masked(q, k, v, LAYOUT, queries.rows, 0.3), atol=2e-6)


@gpu
@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "key_heads"), HEADS)
def test_on_a_gpu_both_kernels_equal_masked_attention(kind, heads, key_heads):
    queries = getattr(LAYOUT, kind)
    q, k, v = states(queries, LAYOUT, heads, key_heads, width=64)
    expected = masked(q, k, v, LAYOUT, queries.rows, 0.125)

    output = flex_cascade(q.cuda(), k.cuda(), v.cuda(), queries, 0.125).cpu()
    assert torch.allclose(output, expected, atol=5e-3)  # TF32
    if varlen.HAS_VARLEN:
        half = [values.cuda().bfloat16() for values in (q, k, v)]
        output = varlen.varlen_cascade(*half, queries, 0.125).float().cpu()
        assert torch.allclose(output, expected, atol=5e-2)
