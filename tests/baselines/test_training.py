"""One model is trained: what it learns, what it must not learn, and that it is the same every time."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from optirag_core.baselines.models import MODELS, ModelSize
from optirag_core.baselines.samples import Samples
from optirag_core.baselines.training import scored, train_baseline
from optirag_core.data.splits import requests_for
from optirag_core.evaluation.metrics import binary_metrics
from tests.baselines.data import ATTRIBUTES, PROFILE, dataset_of, random_dataset, settings_of


def samples_of(dataset, settings):
    return Samples.of(dataset, settings, attributes=ATTRIBUTES, profile=PROFILE)


def tastes(settings, *, num_users, num_items, seed=0, shuffled=False):
    """Some users like more than others, and some items are liked more, but for one in ten; shuffled, all is chance."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), 20)
    items = np.concatenate([rng.permutation(num_items)[:20] for _ in range(num_users)])
    likes = rng.normal(size=num_users)[users] + rng.normal(size=num_items)[items] > 0
    ratings = np.where(likes ^ (rng.random(len(users)) < 0.1), 5, 1)
    if shuffled:
        rng.shuffle(ratings)
    order = rng.permutation(len(users))
    return dataset_of(users[order], items[order], ratings[order], settings, timed=False)


@pytest.fixture(scope="module")
def settings():
    return settings_of()


@pytest.fixture(scope="module")
def samples(settings):
    return samples_of(random_dataset(settings, timed=True), settings)


def test_the_same_seed_gives_the_same_bits_and_leaves_torchs_generator_alone(samples, settings):
    torch.manual_seed(7)
    first = train_baseline(samples, "DeepFM", settings.baselines, 0)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1))
    second, third = (train_baseline(samples, "DeepFM", settings.baselines, seed) for seed in (0, 1))
    assert first.trials == second.trials
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert np.array_equal(first.scores, second.scores) and not np.array_equal(first.scores, third.scores)


def test_the_trial_of_the_least_validation_loss_is_kept_and_gives_the_scores(samples, settings):
    trained = train_baseline(samples, "DCNv2", settings.baselines, 0)
    losses = [trial.validation_log_loss for trial in trained.trials]
    point = trained.trials[trained.chosen].hyperparameters
    model = MODELS["DCNv2"](samples.vocabularies, ModelSize(4, (8,), point.num_layers, point.dropout))
    model.load_state_dict(trained.weights)
    validated = scored(model, samples, samples.validation)
    measured = binary_metrics(samples.validation.labels.numpy(), validated)
    assert len(losses) == 2 and measured.log_loss == min(losses)
    assert np.array_equal(trained.scores, scored(model, samples, samples.test))
    metrics = trained.metrics(samples)
    assert metrics["test_auc"] == roc_auc_score(samples.test.labels, trained.scores)
    assert metrics["num_parameters"] == sum(weight.numel() for weight in trained.weights.values())


def test_training_ends_when_validation_gets_no_better(samples, settings):
    """Nothing but chance: the first epochs of a high rate already fit noise."""
    high = {"learning_rates": (0.1,), "weight_decays": (0.0,), "max_epochs": 30, "patience": 3, "num_trials": 1}
    [trial] = train_baseline(samples, "DeepFM", settings.baselines.model_copy(update=high), 0).trials
    assert trial.num_epochs == trial.best_epoch + 1 + 3 < 30


def test_without_validation_pairs_all_epochs_are_trained(settings):
    split = {"method": "last_share", "validation_share": 0.0, "tune_share": 0.2}
    settings = settings_of(dataset={"like_threshold": 3, "split": split})
    dataset = random_dataset(settings, timed=False)
    assert not len(requests_for(dataset.interactions, "validation"))
    samples = samples_of(dataset, settings)
    trained = train_baseline(samples, "DeepFM", settings.baselines, 0)
    assert trained.chosen == 0
    assert [(trial.num_epochs, trial.best_epoch, trial.validation_auc) for trial in trained.trials] == [
        (2, 1, None)
    ] * 2
    assert len(trained.scores) == len(samples.test) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_a_taste_is_learned_and_shuffled_labels_are_not(name):
    """300 users with 20 ratings of 40 items: 600 test pairs, whose AUC by chance has a standard error of 0.024."""
    settings = settings_of(
        baselines={"num_trials": 2, "max_epochs": 15, "batch_size": 256, "learning_rates": [3e-3], "hidden": [16]}
    )
    aucs = [
        train_baseline(samples, name, settings.baselines, 0).metrics(samples)["test_auc"]
        for shuffled in (False, True)
        for samples in [samples_of(tastes(settings, num_users=300, num_items=40, shuffled=shuffled), settings)]
    ]
    assert aucs[0] > 0.75
    assert abs(aucs[1] - 0.5) < 0.08
