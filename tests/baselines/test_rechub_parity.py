"""The layers against those of torch-rechub, with the same weights; its departures from the papers are set to nothing.

`pip install --no-deps torch-rechub`: 0.9.0 was compared.
"""

import pytest
import torch

from optirag_core.baselines.autoint import InteractingLayer
from optirag_core.baselines.dcnv2 import CrossLayer
from optirag_core.baselines.deepfm import second_order
from optirag_core.baselines.din import ActivationUnit

layers = pytest.importorskip("torch_rechub.basic.layers", reason="torch-rechub is not installed: no second opinion")
VECTORS = torch.randn(7, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_second_order():
    assert torch.allclose(second_order(VECTORS), layers.FM()(VECTORS).squeeze(1), atol=1e-5)


def test_crosses():
    """Theirs has its bias outside of the product, 0 at first."""
    theirs, ours = layers.CrossNetV2(24, 2), [CrossLayer(24), CrossLayer(24)]
    first = crossed = VECTORS.flatten(1)
    for layer, weights in zip(ours, theirs.w, strict=True):
        layer.linear.weight.data, layer.linear.bias.data = weights.weight.data, torch.zeros(24)
        crossed = layer(first, crossed)
    assert torch.allclose(crossed, theirs(first), atol=1e-5)


def test_self_attention():
    """Theirs divides its scores by the root of a head's width: here our queries are."""
    theirs, ours = layers.InteractingLayer(6, num_heads=2), InteractingLayer(6, 3, 2)
    ours.query.weight.data = theirs.W_Q.weight.data * theirs.scale
    ours.key.weight, ours.value.weight, ours.residual.weight = theirs.W_K.weight, theirs.W_V.weight, theirs.W_Res.weight
    assert torch.allclose(ours(VECTORS), theirs(VECTORS), atol=1e-5)


def test_activation_unit():
    """Their batch normalization is the identity before training, but for its epsilon."""
    din = pytest.importorskip("torch_rechub.models.ranking.din")
    theirs, ours = din.ActivationUnit(6, dims=[36], activation="relu").eval(), ActivationUnit(6)
    first, normalization, *_, last = theirs.attention.mlp
    normalization.eps = 0.0
    ours.weight[0].load_state_dict(first.state_dict())
    ours.weight[-1].load_state_dict(last.state_dict())
    candidate, history = VECTORS[:, 0], VECTORS[:, 1:]
    interest = (ours(candidate, history).unsqueeze(-1) * history).sum(dim=1)
    assert torch.allclose(interest, theirs(history, candidate), atol=1e-5)
