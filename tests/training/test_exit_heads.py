"""Heads are trained on hidden states by hand-made answers: losses, rates, starts, and what is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from optirag_core.config.exits import ExitHeadsSettings
from optirag_core.engine.cost import ModelShape
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.states import LastStates
from optirag_core.errors import ConfigError, DataError
from optirag_core.training.exit_features import ExitFeatures
from optirag_core.training.exit_heads import (
    HeadSamples,
    Vocabulary,
    head_logit,
    head_losses,
    is_clearly_better,
    train_exit_heads,
)
from tests.conftest import tiny_llama
from tests.reference import full_softmax

from .conftest import ANSWERS, NO, YES

LAYERS = (1, 2, 3)
FINAL = 4
WIDTH, FEATURES = 32, 3
SETTINGS = ExitHeadsSettings(layers=(2, 3), learning_rate=0.01, decay=0.5, epochs=20, batch_size=16)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def random_answers(number, *, seed=0, evidence=False):
    generator = torch.Generator().manual_seed(seed)
    states = {layer: torch.randn(number, WIDTH, generator=generator) for layer in (*LAYERS, FINAL)}
    known = torch.randn(number, FEATURES, generator=generator) if evidence else None
    return HeadSamples(states, known, torch.randint(0, 2, (number,), generator=generator).float())


def with_evidence(model, weights=(1.0, 0.0, 0.0), bias=0.0):
    heads = ExitHeads(model, LAYERS, ANSWERS, FEATURES)
    heads.start_from_evidence(torch.tensor(weights), bias)
    return heads


def answers_of(logits, *, seed=0):
    """Labels drawn with p = sigmoid(logits)."""
    return torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(seed))


def values(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def losses_of(heads, samples, layers=LAYERS):
    return [loss.item() for loss in head_losses(heads, samples, layers)]


def test_the_losses_are_those_of_the_answer_among_the_two_words(model):
    samples, heads = random_answers(5), ExitHeads(model, LAYERS, ANSWERS)

    for layer, loss in zip(LAYERS, head_losses(heads, samples, LAYERS), strict=True):
        expected = 0.0
        for hidden, label in zip(samples.states[layer], samples.labels, strict=True):
            p = full_softmax(model, heads[layer], ANSWERS, hidden).detach()
            expected -= math.log(p[YES if label else NO] / (p[YES] + p[NO])) / len(samples)
        assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_the_papers_loss_is_that_of_the_answer_among_all_tokens(model):
    """One step of 0: what is reported is the loss before it."""
    samples, heads, losses = random_answers(5), ExitHeads(model, (2,), ANSWERS), []
    vocabulary = Vocabulary(model.lm_head.weight.detach(), ANSWERS)
    settings = SETTINGS.model_copy(update={"loss": "vocabulary", "epochs": 1, "learning_rate": 1e-12})
    expected = 0.0
    for hidden, label in zip(samples.states[2], samples.labels, strict=True):
        p = full_softmax(model, heads[2], ANSWERS, hidden).detach()
        expected -= math.log(p[YES if label else NO]) / len(samples)

    train_exit_heads(
        heads, samples, settings, seed=0, vocabulary=vocabulary, on_epoch=lambda _, loss: losses.append(loss)
    )

    assert losses == [pytest.approx(expected, abs=1e-4)]


def test_training_lowers_the_loss_of_every_head_and_leaves_the_lm_alone(model):
    before = values(model)
    samples, heads, epochs = random_answers(60, seed=1), ExitHeads(model, LAYERS, ANSWERS), []
    untrained = losses_of(heads, samples)

    train_exit_heads(heads, samples, SETTINGS, seed=0, on_epoch=lambda *epoch: epochs.append(epoch))

    assert all(after < 0.9 * start for after, start in zip(losses_of(heads, samples), untrained, strict=True))
    assert [epoch for epoch, _ in epochs] == list(range(1, SETTINGS.epochs + 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in heads.parameters())


def test_learning_rates_fall_with_depth(model):
    """lambda_0 = 0.01, beta = 0.5: 0.01, 0.01 e^-0.5 = 0.0060653, 0.01 e^-1 = 0.0036788; Adam's first step is these."""
    heads = ExitHeads(model, LAYERS, ANSWERS)
    before = values(heads)
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 1_000})
    train_exit_heads(heads, random_answers(100), settings, seed=0)
    after = values(heads)
    for layer, rate in zip(LAYERS, (0.01, 0.0060653, 0.0036788), strict=True):
        name = f"heads.{layer}.weight"
        assert (after[name] - before[name]).abs().median().item() == pytest.approx(rate, rel=1e-2)


def test_heads_learn_alone(model):
    """A head ends the same whether or not the others are trained beside it; only its rate counts its depth."""
    samples = random_answers(30)
    settings = SETTINGS.model_copy(update={"decay": 0.0})
    together, alone = ExitHeads(model, LAYERS, ANSWERS), ExitHeads(model, (3,), ANSWERS)
    train_exit_heads(together, samples, settings, seed=0)
    train_exit_heads(alone, samples, settings, seed=0)
    torch.testing.assert_close(together[3].weight, alone[3].weight)


def test_one_seed_one_result(model):
    def trained(seed):
        heads = ExitHeads(model, LAYERS, ANSWERS)
        torch.seed()  # what else drew random numbers must not count
        train_exit_heads(heads, random_answers(30), SETTINGS, seed=seed)
        return torch.cat([parameter.flatten() for parameter in heads.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize(
    ("losses", "users", "better"),
    [
        ([0.1, 0.3], None, True),  # gains 0.4, 0.2: their sum 0.6 against sqrt(0.1^2 + 0.1^2) = 0.14
        ([0.1, 0.9], None, False),  # gains 0.4, -0.4
        ([0.0, 0.45], None, True),  # gains 0.5, 0.05: 0.55 against sqrt(2) 0.225 = 0.32
        ([0.0, 0.75], None, False),  # gains 0.5, -0.25: 0.25 against sqrt(2) 0.375 = 0.53
        ([0.1, 0.3], [0, 0], True),  # one user's gains spread by nothing
        ([0.5, 0.5], None, False),
    ],
)
def test_clearly_better_by_hand(losses, users, better):
    users = None if users is None else torch.tensor(users)
    assert is_clearly_better(torch.tensor(losses), torch.tensor([0.5, 0.5]), users) == better


def test_answers_of_one_user_count_as_one():
    """Eight gains of two users that disagree: as eight strangers they are clear, as two users they are not."""
    gains = torch.tensor([0.5, 0.5, 0.5, 0.5, -0.1, -0.1, -0.1, -0.1])
    users = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert is_clearly_better(-gains, torch.zeros(8), None)
    assert not is_clearly_better(-gains, torch.zeros(8), users)


def test_a_head_leaves_its_start_only_for_what_is_clearly_better_on_validation(model):
    """Answers that follow the copy leave it nothing to learn but their noise; others that the states decide do."""
    settings, heads = SETTINGS.model_copy(update={"epochs": 30}), ExitHeads(model, (2,), ANSWERS)
    before = values(heads)
    few, other = (
        replace(each, labels=answers_of(head_logit(heads, 2, each), seed=seed))
        for seed, each in enumerate((random_answers(60, seed=1), random_answers(300, seed=2)))
    )
    train_exit_heads(heads, few, settings, seed=0, validation=other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(heads).items())

    taught, held_out = (
        replace(each, labels=(each.states[2][:, 0] > 0).float())
        for each in (random_answers(600, seed=3), random_answers(300, seed=4))
    )
    start = losses_of(heads, held_out, [2])
    train_exit_heads(heads, taught, settings, seed=0, validation=held_out)
    assert losses_of(heads, held_out, [2])[0] < start[0] - 0.1


def test_the_plain_copy_stays_where_training_only_harms(model):
    """Trained on the opposite of what the copy says, and validated on what it says."""
    samples, heads = random_answers(30), ExitHeads(model, (2,), ANSWERS)
    before = values(heads)
    says = (head_logit(heads, 2, samples) > 0).float()
    opposite, same = (HeadSamples(samples.states, None, labels) for labels in (1 - says, says))
    train_exit_heads(heads, opposite, SETTINGS, seed=0, validation=same)
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(heads).items())


def test_without_evidence_the_lms_own_head_stays_as_it_is(model):
    heads = ExitHeads(model, LAYERS, ANSWERS)
    before = values(heads[FINAL])

    train_exit_heads(heads, random_answers(30), SETTINGS, seed=0)

    assert all(torch.equal(tensor, before[name]) for name, tensor in values(heads[FINAL]).items())


def test_heads_without_evidence_take_none_from_features_that_have_it(model):
    """The paper's form on the same recorded states."""
    answers = random_answers(30, evidence=True)
    states = torch.stack([answers.states[layer] for layer in (*LAYERS, FINAL)], dim=1)
    ones = torch.ones(30, dtype=torch.int64)
    packed = LastStates(
        states, (*LAYERS, FINAL), (1,) * 30, torch.arange(30), ones, ones, ModelShape.of(model.config), None
    )
    features = ExitFeatures(np.array(["u"] * 30), np.array(["i"] * 30), answers.labels, answers.evidence, packed)
    heads = ExitHeads(model, LAYERS, ANSWERS)

    samples = HeadSamples.of(features, heads)
    train_exit_heads(heads, samples, SETTINGS, seed=0)

    assert samples.evidence is None
    assert HeadSamples.of(features, with_evidence(model)).evidence is answers.evidence
    with pytest.raises(ConfigError, match=r"layers \[1\] were not kept.* run exit_features again"):
        HeadSamples.of(replace(features, states=replace(packed, states=states[:, 1:], layers=(2, 3, FINAL))), heads)


def test_heads_that_learn_nothing_from_the_llm_are_about_the_evidence_alone(model):
    """Answers follow 2 c_0; hidden states are noise: no head is clearly worse than the head at depth 0."""
    samples, validation = (random_answers(400, seed=seed, evidence=True) for seed in (1, 2))
    samples, validation = (replace(each, labels=answers_of(2 * each.evidence[:, 0])) for each in (samples, validation))
    heads = with_evidence(model, weights=(2.0, 0.0, 0.0))
    settings = SETTINGS.model_copy(update={"learning_rate": 0.1})

    train_exit_heads(heads, samples, settings, seed=0, validation=validation)

    alone, *trained = (
        functional.binary_cross_entropy_with_logits(
            head_logit(heads, layer, validation), validation.labels, reduction="none"
        )
        for layer in (0, *LAYERS, FINAL)
    )
    assert not any(is_clearly_better(alone, losses, None) for losses in trained)
    assert max(losses.mean().item() for losses in trained) < alone.mean().item() + 0.02


def test_few_answers_leave_every_head_at_the_evidence_alone(model):
    """Eight answers cannot say what a copy that knows nothing is worth beside it."""
    few, validation = random_answers(8, seed=1, evidence=True), random_answers(40, seed=2, evidence=True)
    validation = replace(validation, labels=answers_of(2 * validation.evidence[:, 0]))
    heads = with_evidence(model, weights=(2.0, 0.0, 0.0))

    train_exit_heads(heads, few, SETTINGS, seed=0, validation=validation)

    for layer in (*LAYERS, FINAL):
        torch.testing.assert_close(head_logit(heads, layer, validation), head_logit(heads, 0, validation))


def test_heads_start_between_their_copy_and_the_evidence(model):
    """Answers follow half the copy's logit and three times the evidence's: the start finds both, without an epoch."""
    raw, heads = random_answers(20_000, evidence=True), with_evidence(model)
    copy_logit = head_logit(heads, 2, raw) - raw.evidence[:, 0]
    labels = answers_of(0.5 * copy_logit + 3 * raw.evidence[:, 0] - 1)
    samples = HeadSamples(raw.states, raw.evidence, labels)
    before = heads[2].weight.clone()
    still = SETTINGS.model_copy(update={"learning_rate": 1e-12, "epochs": 1, "batch_size": 20_000})

    train_exit_heads(heads, samples, still, seed=0)

    torch.testing.assert_close(heads[2].weight, 0.5 * before, rtol=0.1, atol=1e-4)
    assert heads[2].evidence.weight.tolist() == pytest.approx([3.0, 0.0, 0.0], abs=0.15)
    assert heads[2].evidence.bias.item() == pytest.approx(-1.0, abs=0.1)


def test_the_head_at_depth_0_stays_and_the_lms_own_is_trained_with_evidence(model):
    heads = with_evidence(model)
    before = values(heads)

    train_exit_heads(heads, random_answers(60, evidence=True), SETTINGS, seed=0)

    after = values(heads)
    changed = {name.split(".")[1] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {str(layer) for layer in (*LAYERS, FINAL)}


def test_a_single_head_is_the_deepest_one_everywhere(model):
    heads, settings = with_evidence(model), SETTINGS.model_copy(update={"single_head": True})

    train_exit_heads(heads, random_answers(60, evidence=True), settings, seed=0)

    deepest = values(heads[FINAL])
    for layer in LAYERS:
        assert all(torch.equal(tensor, deepest[name]) for name, tensor in values(heads[layer]).items())
    paper = ExitHeads(model, LAYERS, ANSWERS)
    copies = values(paper)
    train_exit_heads(paper, random_answers(60), settings, seed=0)
    assert all(torch.equal(tensor, copies[name]) for name, tensor in values(paper).items())


def test_answers_of_one_kind_do_not_stop_the_training(model):
    samples = random_answers(20, evidence=True)
    liked = HeadSamples(samples.states, samples.evidence, torch.ones(20))
    heads = with_evidence(model)

    train_exit_heads(heads, liked, SETTINGS, seed=0)

    assert all(math.isfinite(loss) for loss in losses_of(heads, liked, [0, *LAYERS, FINAL]))


def test_too_few_answers_are_an_error(model):
    with pytest.raises(DataError, match="no training sample for the exit heads"):
        train_exit_heads(ExitHeads(model, LAYERS, ANSWERS), random_answers(0), SETTINGS, seed=0)
