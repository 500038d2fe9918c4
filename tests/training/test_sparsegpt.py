"""SparseGPT by hand, against magnitude pruning, and a pruned LLM in the engine."""

import copy

import pytest
import torch

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import DataError, ModelError
from optirag_core.training.sparsegpt import MODULES, dampened, prune, sparse_weight
from tests.conftest import tiny_llama
from tests.reference import PlainScorer

from .conftest import ANSWERS, random_samples

GROUPS = [each.group for each in random_samples(12)]
SINGLE = [UserGroup(group.prefix, group.suffixes[:1]) for group in GROUPS]
"""One candidate each: packed prompts are plain ones."""


def matrix(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated_inputs(num_inputs, num_tokens=200):
    return matrix(num_inputs, num_inputs, seed=1) @ matrix(num_inputs, num_tokens, seed=2)


def hessian_of(inputs):
    return dampened(2.0 * inputs @ inputs.T)


@torch.no_grad()
def inputs_of(linear, model):
    """What each of some layers reads of the plain prompts of `SINGLE`, [I, T]."""
    read = {part: [] for part in linear}
    hooks = [part.register_forward_pre_hook(lambda part, inputs: read[part].append(inputs[0][0])) for part in linear]
    for group in SINGLE:
        model(torch.tensor([[*group.prefix, *group.suffixes[0]]]))
    for hook in hooks:
        hook.remove()
    return [torch.cat(read[part]).double().T for part in linear]


def magnitude(weight, count):
    pruned = weight.clone()
    pruned.view(-1)[weight.abs().flatten().argsort()[:count]] = 0.0
    return pruned


def test_two_by_two_by_hand():
    """H^-1 = [[2, -1], [-1, 2]] / 3, and of the second column alone 1 / 2.

    A weight costs w^2 * 3/2 in the first column and w^2 * 2 in the second: [[1.5, 18], [13.5, 2]], so the two ones
    go. Of the one in the first column the second takes over H_12 / H_22 = 1/2; the other is in the last column.
    """
    hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64)

    sparse = sparse_weight(weight, hessian, sparsity=0.5, block_columns=2)

    torch.testing.assert_close(sparse, torch.tensor([[0.0, 3.5], [3.0, 0.0]], dtype=torch.float64))


def test_the_cheapest_weight_is_not_the_smallest():
    """H = diag(9, 1, 1): 0.5^2 * 9 = 2.25 costs more than 1^2 and less than 2^2."""
    hessian = torch.diag(torch.tensor([9.0, 1.0, 1.0], dtype=torch.float64))
    weight = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64)

    assert sparse_weight(weight, hessian, sparsity=1 / 3, block_columns=3).tolist() == [[0.5, 0.0, 2.0]]
    assert sparse_weight(weight, hessian, sparsity=2 / 3, block_columns=3).tolist() == [[0.0, 0.0, 2.0]]


def test_a_weight_that_others_can_stand_in_for_goes_first_and_they_do():
    """The first input is nearly the second less the third; what is left is a least-squares problem."""
    inputs = correlated_inputs(4)
    inputs[0] = inputs[1] - inputs[2] + 0.01 * inputs[0]
    weight = torch.tensor([[9.0, 1.0, 2.0, 1.0]], dtype=torch.float64)

    sparse = sparse_weight(weight, inputs @ inputs.T, sparsity=0.25, block_columns=4)

    best = torch.linalg.lstsq(inputs[1:].T, (weight @ inputs).T).solution.T
    assert sparse[0, 0] == 0.0
    torch.testing.assert_close(sparse[:, 1:], best)
    assert sparse[0].tolist() == pytest.approx([0.0, 10.0, -7.0, 1.0], abs=0.2)


def test_inputs_that_know_nothing_of_each_other_leave_magnitude_pruning():
    weight = matrix(6, 10)

    assert torch.equal(
        sparse_weight(weight, torch.eye(10).double(), sparsity=0.5, block_columns=10), magnitude(weight, 30)
    )


@pytest.mark.parametrize("block_columns", [1, 3, 8])
def test_correlated_inputs_lose_less_than_with_magnitude_pruning(block_columns):
    weight, inputs = matrix(16, 24), correlated_inputs(24)

    sparse = sparse_weight(weight, hessian_of(inputs), sparsity=0.5, block_columns=block_columns)

    def lost(pruned):
        return ((weight - pruned) @ inputs).norm().item()

    assert lost(sparse) < 0.9 * lost(magnitude(weight, weight.numel() // 2))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("block_columns", [1, 2, 9])
def test_exactly_the_share_that_was_asked_for_is_zero(sparsity, block_columns):
    inputs = correlated_inputs(5)

    sparse = sparse_weight(matrix(7, 5), inputs @ inputs.T, sparsity=sparsity, block_columns=block_columns)

    assert (sparse == 0.0).sum() == round(sparsity * 35)


def test_the_named_layers_are_pruned_and_nothing_else():
    model, untouched = tiny_llama(), tiny_llama()

    lost = prune(model, GROUPS, sparsity=0.25)

    assert set(lost) == {f"{depth}.self_attn.{name}" for depth in (1, 2, 3, 4) for name in MODULES}
    assert all(0.0 < share < 0.25 for share in lost.values())
    for (name, weight), before in zip(model.named_parameters(), untouched.parameters(), strict=True):
        if name.split(".")[-2] in MODULES:
            assert (weight == 0.0).sum() == weight.numel() // 4
        else:
            assert torch.equal(weight, before), name


def test_each_layer_is_calibrated_behind_the_pruned_ones():
    model, expected = tiny_llama(), tiny_llama()

    prune(model, SINGLE)

    for layer in expected.model.layers:
        linear = [getattr(layer.self_attn, name) for name in MODULES]
        for part, inputs in zip(linear, inputs_of(linear, expected), strict=True):
            part.weight.data = sparse_weight(
                part.weight.data.double(), hessian_of(inputs), sparsity=0.5, block_columns=4
            ).float()
    for pruned, reference in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(pruned, reference, rtol=0, atol=1e-4)


def test_the_pruned_llm_scores_through_the_engine():
    model, whole = tiny_llama(), tiny_llama()
    prune(model, GROUPS)
    policy = ExitPolicy("none", window=2, threshold=0.0)

    scores, plain, before = (
        [pair.score for group in scored for pair in group]
        for scored in (
            Scorer(model, ExitHeads(model, (3,), ANSWERS), policy).score(GROUPS).scores,
            PlainScorer(copy.deepcopy(model), ExitHeads(model, (3,), ANSWERS), policy).score(GROUPS),
            Scorer(whole, ExitHeads(whole, (3,), ANSWERS), policy).score(GROUPS).scores,
        )
    )

    assert scores == pytest.approx(plain, abs=1e-4)
    assert scores != pytest.approx(before, abs=1e-2)


def test_no_prompts_and_unknown_layers_are_refused():
    with pytest.raises(DataError, match="no prompt to calibrate"):
        prune(tiny_llama(), [UserGroup([1, 2], [])])
    with pytest.raises(ModelError, match=r"query is to be pruned, but the linear layers of this LLM are down_proj"):
        prune(tiny_llama(), GROUPS, modules=["q_proj", "query"])
