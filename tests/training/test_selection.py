import torch

from optirag_core.training.selection import BestWeights


class Passing:
    """Weights that are a number, and the best of those that were passed."""

    def __init__(self, loss=None):
        self.value = 4.0
        self.best = BestWeights(lambda: {"weight": torch.tensor(self.value)}, loss)

    def through(self, *epochs):
        for self.value, loss in epochs:
            self.best.offer({"validation_loss": loss})
        return self.best


def test_the_weights_with_the_least_loss_are_kept():
    """Losses 0.7, 0.5, 0.6, 0.5: the second are kept, as the fourth are not better."""
    best = Passing(0.7).through((1.0, 0.5), (2.0, 0.6), (3.0, 0.5))
    assert (best.epoch, best.loss, best.weights) == (0, 0.5, {"weight": 1.0})
    assert [epoch["validation_loss"] for epoch in best.history] == [0.5, 0.6, 0.5]


def test_nothing_better_leaves_the_first_and_no_number_is_never_better():
    best = Passing(0.7).through((9.0, 0.8), (9.0, float("nan")))
    assert (best.epoch, best.loss, best.weights) == (None, 0.7, {"weight": 4.0})


def test_without_validation_the_last_are_kept():
    best = Passing().through((1.0, None), (2.0, None))
    assert (best.epoch, best.loss, best.weights) == (1, None, {"weight": 2.0})


def test_goes_on_from_its_state():
    weights, values = Passing(0.7).through((1.0, 0.5)).state()
    later = Passing(0.1)
    later.best.restore(weights, values)
    best = later.through((2.0, 0.6), (3.0, 0.4))
    assert (best.epoch, best.loss, best.weights) == (2, 0.4, {"weight": 3.0})
    assert len(best.history) == 3
