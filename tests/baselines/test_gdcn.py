import math

import pytest
import torch

from optirag_core.baselines.gdcn import GatedCrossLayer


def test_one_gated_cross_by_hand():
    """The gated cross layer: c0 = (1, 2), c = (3, 4), W_c c + b = (12, -3); gates 1/4 and 1/2.

    (1 * 12 / 4 + 3, 2 * -3 / 2 + 4) = (6, 1). The first gate: sigmoid(-log 3 * 3 / 3) = 1 / (1 + 3).
    """
    layer = GatedCrossLayer(2)
    with torch.no_grad():
        layer.cross.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        layer.cross.bias.fill_(1)
        layer.gate.weight.copy_(torch.tensor([[-math.log(3) / 3, 0.0], [0.0, 0.0]]))
        found = layer(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    assert found[0].tolist() == pytest.approx([6, 1])
