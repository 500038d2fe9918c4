import math

import pytest
import torch

from optirag_core.baselines.autoint import InteractingLayer


def test_one_head_by_hand():
    """Equations 5-8 with query v, key v log 2, value 10 v, residual -8 v, of the vectors 1 and 2 of one number.

    Scores of 1: log 2, 2 log 2 -> weights 2/6, 4/6; of 2: 2 log 2, 4 log 2 -> 4/20, 16/20.
    Attended: 10/3 + 40/3 = 50/3, and 2 + 16 = 18. With the residual 26/3 and 2.
    """
    layer = InteractingLayer(1, 1, 1)
    with torch.no_grad():
        for linear, weight in zip(
            (layer.query, layer.key, layer.value, layer.residual), (1, math.log(2), 10, -8), strict=True
        ):
            linear.weight.fill_(weight)
        assert layer(torch.tensor([[[1.0], [2.0]]])).flatten().tolist() == pytest.approx([26 / 3, 2])
        layer.residual.weight.fill_(-10)  # 50/3 - 10 and 18 - 20: ReLU
        assert layer(torch.tensor([[[1.0], [2.0]]])).flatten().tolist() == pytest.approx([20 / 3, 0])


def test_heads_stand_side_by_side():
    """Two heads with values v and 100 v; queries of 0 weigh all vectors alike: the mean of 1 and 2."""
    layer = InteractingLayer(1, 1, 2)
    with torch.no_grad():
        layer.query.weight.zero_()
        layer.residual.weight.zero_()
        layer.value.weight.copy_(torch.tensor([[1.0], [100.0]]))
        assert layer(torch.tensor([[[1.0], [2.0]]])).tolist() == [[[1.5, 150.0], [1.5, 150.0]]]
