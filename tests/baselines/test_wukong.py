import pytest
import torch

from optirag_core.baselines.size import ModelSize
from optirag_core.baselines.wukong import FactorizationMachineBlock, InteractionLayer, LinearCompressionBlock

VECTORS = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
SIZE = ModelSize(embedding_dim=2, hidden=(), num_layers=1, dropout=0.0)


def test_the_factorization_machine_block_by_hand():
    """X X^T = (5, 1; 1, 10), mean 17/4, deviations (3, -13, -13, 23)/4 of variance 219/16.

    Normalized (3, -13, -13, 23) / sqrt(219); the MLP here takes its first number, and the last one plus 7.
    """
    block = FactorizationMachineBlock(2, 1, SIZE)
    with torch.no_grad():
        block.mlp[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
        block.mlp[0].bias.copy_(torch.tensor([0.0, 7.0]))
        found = block(VECTORS)
    assert found.shape == (1, 1, 2)
    assert found.flatten().tolist() == pytest.approx([3 / 219**0.5, 23 / 219**0.5 + 7], rel=1e-5)


def test_the_compression_by_hand():
    """2 (1, 2) - (3, -1) = (-1, 5)."""
    block = LinearCompressionBlock(2, 1)
    with torch.no_grad():
        block.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
    assert block(VECTORS).tolist() == [[[-1.0, 5.0]]]


def test_the_layer_joins_both_blocks_and_adds_its_input():
    """FMB's MLP gives (4, 6), LCB (-1, 5): with X (5, 8) and (2, 4), each normalized to (-1, 1)."""
    layer = InteractionLayer(2, SIZE)
    with torch.no_grad():
        layer.interactions.mlp[0].weight.zero_()
        layer.interactions.mlp[0].bias.copy_(torch.tensor([4.0, 6.0]))
        layer.compression.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        layer.norm.weight.copy_(torch.tensor([1.0, 10.0]))
    assert layer(VECTORS).flatten().tolist() == pytest.approx([-1, 10, -1, 10], rel=1e-4)
