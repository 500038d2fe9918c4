import math

import pytest
import torch

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.gru4rec import Gru4Rec
from optirag_core.baselines.size import ModelSize


def model():
    """Of one number per vector: update gate 1/2, reset gate 1, candidate state tanh(x + h)."""
    found = Gru4Rec(Vocabularies(fields=(2, 4), max_history=2), ModelSize(1, hidden=(), num_layers=0, dropout=0.0))
    with torch.no_grad():
        for weights in found.gru.parameters():
            weights.zero_()
        found.gru.bias_ih_l0[0] = 100  # torch's order: reset, update, candidate
        found.gru.weight_ih_l0[2] = found.gru.weight_hh_l0[2] = 1
    return found


def test_two_steps_by_hand():
    """Equations 2-5: h1 = tanh(1) / 2, h2 = (h1 + tanh(-2 + h1)) / 2; the zeros of the padding are not read."""
    history = torch.tensor([[[1.0], [-2.0]], [[1.0], [0.0]], [[0.0], [0.0]]])
    first = math.tanh(1) / 2
    second = (first + math.tanh(first - 2)) / 2
    states = model().last_state(history, torch.tensor([2, 1, 0]))
    assert states[:, 0].tolist() == pytest.approx([second, first, 0], abs=1e-6)
