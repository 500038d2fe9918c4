import math

import pytest
import torch

from optirag_core.config import ExitHeadsSettings
from optirag_core.engine.heads import ExitHeads
from optirag_core.errors import DataError
from optirag_core.training.exit_heads import exit_features, head_losses, train_exit_heads
from tests.conftest import tiny_llama
from tests.reference import full_softmax, hidden_states

from .conftest import ANSWERS, NO, YES, prompts_of, random_samples, sample

LAYERS = (1, 2, 3)
SETTINGS = ExitHeadsSettings(layers=(2, 3), learning_rate=0.01, decay=0.5, epochs=20, batch_size=16)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def features_of(model, samples, layers=LAYERS):
    return exit_features(model, samples, layers, batch_tokens=60)


def values(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_features_are_the_hidden_states_of_every_prompt(model):
    """Their order is free, the labels share it: each prompt's states are found once, with its label."""
    samples = random_samples(20)
    features, labels = features_of(model, samples)
    answers = [label for each in samples for label in each.labels]
    assert {layer: states.shape for layer, states in features.items()} == dict.fromkeys(LAYERS, (len(answers), 32))
    found = []
    for prompt, label in zip(prompts_of(samples), answers, strict=True):
        expected = hidden_states(model, prompt)
        distances = {layer: (features[layer] - expected[layer]).abs().amax(dim=1) for layer in LAYERS}
        row = int(distances[1].argmin())
        assert all(distances[layer][row] < 1e-4 for layer in LAYERS)
        assert labels[row] == label
        found.append(row)
    assert sorted(found) == list(range(len(answers)))


def test_features_are_fp32_whatever_the_lm():
    features, _ = features_of(tiny_llama().bfloat16(), random_samples(3))
    assert {states.dtype for states in features.values()} == {torch.float32}


def test_the_losses_are_those_of_the_answer_among_the_two_words(model):
    samples = random_samples(5)
    features, labels = features_of(model, samples)
    heads = ExitHeads(model, LAYERS, ANSWERS)
    for layer, loss in zip(LAYERS, head_losses(heads, features, labels), strict=True):
        expected = 0.0
        for hidden, label in zip(features[layer], labels, strict=True):
            p = full_softmax(model, heads[layer], ANSWERS, hidden).detach()
            expected -= math.log(p[YES if label else NO] / (p[YES] + p[NO])) / len(labels)
        assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_training_lowers_the_loss_of_every_head_and_leaves_the_lm_alone(model):
    samples = random_samples(60, seed=1)
    before = values(model)
    features, labels = features_of(model, samples)
    heads = ExitHeads(model, LAYERS, ANSWERS)
    untrained = [loss.item() for loss in head_losses(heads, features, labels)]
    epochs = []

    train_exit_heads(heads, features, labels, SETTINGS, seed=0, on_epoch=lambda *epoch: epochs.append(epoch))

    trained = [loss.item() for loss in head_losses(heads, features, labels)]
    assert all(after < 0.9 * start for after, start in zip(trained, untrained, strict=True))
    assert [epoch for epoch, _ in epochs] == list(range(1, SETTINGS.epochs + 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in heads.parameters())
    assert not heads.training


def test_learning_rates_fall_with_depth(model):
    """lambda_0 = 0.01, beta = 0.5: 0.01, 0.01 e^-0.5 = 0.0060653, 0.01 e^-1 = 0.0036788; Adam's first step is these."""
    features, labels = features_of(model, random_samples(30))
    heads = ExitHeads(model, LAYERS, ANSWERS)
    before = values(heads)
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 1_000})
    train_exit_heads(heads, features, labels, settings, seed=0)
    after = values(heads)
    for layer, rate in zip(LAYERS, (0.01, 0.0060653, 0.0036788), strict=True):
        name = f"heads.{layer}.weight"
        assert (after[name] - before[name]).abs().median().item() == pytest.approx(rate, rel=1e-2)


def test_heads_learn_alone(model):
    """A head ends the same whether or not the others are trained beside it; only its rate counts its depth."""
    features, labels = features_of(model, random_samples(30))
    settings = SETTINGS.model_copy(update={"decay": 0.0})
    together, alone = ExitHeads(model, LAYERS, ANSWERS), ExitHeads(model, (3,), ANSWERS)
    train_exit_heads(together, features, labels, settings, seed=0)
    train_exit_heads(alone, {3: features[3]}, labels, settings, seed=0)
    torch.testing.assert_close(together[3].weight, alone[3].weight)


def test_one_seed_one_result(model):
    features, labels = features_of(model, random_samples(30))

    def trained(seed):
        heads = ExitHeads(model, LAYERS, ANSWERS)
        torch.seed()  # what else drew random numbers must not count
        train_exit_heads(heads, features, labels, SETTINGS, seed=seed)
        return torch.cat([parameter.flatten() for parameter in heads.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_every_head_keeps_its_best_validation_epoch(model):
    features, labels = features_of(model, random_samples(20, seed=1))
    validation = features_of(model, random_samples(20, seed=2))
    heads = ExitHeads(model, LAYERS, ANSWERS)
    epochs = []

    def losses(*_):
        epochs.append([loss.item() for loss in head_losses(heads, *validation)])

    losses()
    train_exit_heads(heads, features, labels, SETTINGS, seed=0, validation=validation, on_epoch=losses)
    best = [min(column) for column in zip(*epochs, strict=True)]
    assert [loss.item() for loss in head_losses(heads, *validation)] == pytest.approx(best, abs=1e-6)
    assert best != pytest.approx(epochs[-1], abs=1e-3)


def test_the_plain_copy_stays_where_training_only_harms(model):
    """Trained on the opposite of what the copy says, and validated on what it says."""
    features, _ = features_of(model, random_samples(30), layers=(2,))
    heads = ExitHeads(model, (2,), ANSWERS)
    before = values(heads)
    logits = heads[2](features[2])
    labels = (logits[:, 0] > logits[:, 1]).float()
    train_exit_heads(heads, features, 1 - labels, SETTINGS, seed=0, validation=(features, labels))
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(heads).items())


def test_no_samples_are_no_features_and_an_error_to_train_on(model):
    features, labels = features_of(model, [])
    assert {states.shape for states in features.values()} == {(0, 32)}
    heads = ExitHeads(model, LAYERS, ANSWERS)
    with pytest.raises(DataError, match="no training sample for the exit heads"):
        train_exit_heads(heads, features, labels, SETTINGS, seed=0)
    some = features_of(model, random_samples(30))
    trained = [ExitHeads(model, LAYERS, ANSWERS) for _ in range(2)]
    train_exit_heads(trained[0], *some, SETTINGS, seed=0, validation=(features, labels))
    train_exit_heads(trained[1], *some, SETTINGS, seed=0)
    assert torch.equal(trained[0][3].weight, trained[1][3].weight)


def test_hooks_are_gone_afterwards(model):
    features_of(model, [sample([1, 2], [[3]])])
    assert not any(layer._forward_hooks for layer in model.model.layers)
