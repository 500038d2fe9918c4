import math

import pytest
import torch

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.eulernet import EulerLayer, EulerNet
from optirag_core.baselines.size import ModelSize
from tests.baselines.pairs import batch

# z1 = 2i (modulus 2, phase pi/2), z2 = 3 (modulus 3, phase 0)
REAL, IMAGINARY = torch.tensor([[[0.0], [3.0]]]), torch.tensor([[[2.0], [0.0]]])


def layer(orders, linear=0.0):
    found = EulerLayer(2, 1, dropout=0.0)
    with torch.no_grad():
        found.orders.copy_(torch.tensor(orders))
        found.linear.weight.copy_(linear * torch.eye(2))
        found.linear.bias.zero_()
    return found


def numbers(pair):
    real, imaginary = pair
    return [complex(x, y) for x, y in zip(real.flatten().tolist(), imaginary.flatten().tolist(), strict=True)]


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [2j, 3]),  # as it begins
        ([[1.0, 1.0], [2.0, 0.0]], [6j, -4]),  # z1 z2 and z1^2
        ([[2.0, -1.0], [0.5, 0.0]], [-4 / 3, 1 + 1j]),  # z1^2 / z2, and sqrt(2i) = 1 + i
    ],
)
def test_learned_orders_are_powers(orders, expected):
    """The explicit interactions: log-moduli and phases are summed with the orders as weights."""
    assert numbers(layer(orders)(REAL, IMAGINARY)) == pytest.approx(expected, abs=1e-5)


def test_biases_scale_and_turn():
    """A log-modulus bias of log 5 and a phase bias of pi/2: 2i * 5i = -10."""
    turned = layer([[1.0, 0.0], [0.0, 1.0]])
    with torch.no_grad():
        turned.log_modulus_bias[0], turned.phase_bias[0] = math.log(5), math.pi / 2
    assert numbers(turned(REAL, IMAGINARY)) == pytest.approx([-10, 3], abs=1e-5)


def test_the_implicit_part_is_rectified_for_real_and_imaginary_parts_alone():
    """The identity adds the number itself, minus the identity nothing: its parts are negative or zero."""
    identity = [[1.0, 0.0], [0.0, 1.0]]
    assert numbers(layer(identity, linear=1.0)(REAL, IMAGINARY)) == pytest.approx([4j, 6], abs=1e-5)
    assert numbers(layer(identity, linear=-1.0)(REAL, IMAGINARY)) == pytest.approx([2j, 3], abs=1e-5)


def test_embeddings_are_phases_and_both_parts_share_their_weights():
    """User pi/2 with modulus 2 is 2i, item 0 with modulus 1 is 1: 10 * (0 + 2) + 100 * (1 + 0) + 7; history times 0."""
    model = EulerNet(Vocabularies(fields=(2, 2), max_history=3), ModelSize(1, (), num_layers=0, dropout=0.0))
    with torch.no_grad():
        model.embedding.tables[0].weight[1], model.embedding.tables[1].weight[1] = math.pi / 2, 0
        model.modulus[0] = 2
        model.output.weight[0], model.output.bias[0] = torch.tensor([10.0, 100.0, 0.0]), 7
        assert model(batch([[1, 1]])).tolist() == pytest.approx([127])
