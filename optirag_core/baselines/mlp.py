"""The MLP of the CTR models."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(num_inputs: int, hidden: Sequence[int], num_outputs: int = 1, *, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, [..., num_inputs] -> [..., num_outputs]."""
    layers: list[nn.Module] = []
    for before, after in pairwise((num_inputs, *hidden)):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((num_inputs, *hidden)[-1], num_outputs))
