import torch

from optirag_core.baselines.dcnv2 import CrossLayer


def test_one_cross_by_hand():
    """Equation 1: x0 = (1, 2), x = (3, 4), W x + b = (3 + 8 + 1, -4 + 1) = (12, -3); x0 * that + x = (15, -2)."""
    layer = CrossLayer(2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        layer.linear.bias.fill_(1)
    assert layer(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).tolist() == [[15.0, -2.0]]
