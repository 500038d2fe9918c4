"""The attention kernel against its definition, and merging with numbers by hand."""

import math

import pytest
import torch

from optirag_core.engine.kernels import attend, attend_plain, merge


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (7, 7), (40, 9), (300, 260), (900, 800)])
def test_the_kernel_equals_the_definition(causal, queries, keys):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 16, generator=generator) for length in (queries, keys, keys))

    fast, plain = (call(q, k, v, causal=causal, scaling=0.25) for call in (attend, attend_plain))

    for one, other in zip(fast, plain, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=3e-6)


def test_without_the_private_kernel_the_definition_is_used(monkeypatch):
    q = torch.randn(1, 2, 5, 8)
    expected = attend_plain(q, q, q, causal=True, scaling=1.0)
    monkeypatch.setattr(torch.ops, "aten", object())

    output, lse = attend(q, q, q, causal=True, scaling=1.0)

    assert torch.equal(output, expected[0])
    assert torch.equal(lse, expected[1])


def test_merge_of_hand_computed_parts():
    # keys with logits log 1, log 2 | log 5 and values 3, 6 | 1: (3 + 12 + 5) / 8 = 2.5
    a, lse_a = torch.tensor([[5.0]]), torch.tensor([math.log(3)])
    b, lse_b = torch.tensor([[1.0]]), torch.tensor([math.log(5)])

    assert merge(a, lse_a, b, lse_b).item() == pytest.approx(2.5)
    assert merge(a, torch.tensor([-math.inf]), b, lse_b).item() == 1.0
