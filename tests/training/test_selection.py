import torch

from optirag_core.training.selection import BestWeights


def test_the_weights_with_the_least_loss_come_back():
    """Losses 0.7, 0.5, 0.6, 0.5: the second are kept, as the fourth are not better."""
    weights = torch.nn.Parameter(torch.tensor([0.0]))
    best = BestWeights([weights], 0.7)
    for value, loss in ((1.0, 0.5), (2.0, 0.6), (3.0, 0.5)):
        weights.data.fill_(value)
        best.offer(loss)
    assert best.loss == 0.5
    best.restore()
    assert weights.item() == 1.0


def test_nothing_better_leaves_the_first_and_no_number_is_never_better():
    weights = torch.nn.Parameter(torch.tensor([4.0]))
    best = BestWeights([weights], 0.7)
    for loss in (0.8, float("nan")):
        weights.data.fill_(9.0)
        best.offer(loss)
    best.restore()
    assert weights.item() == 4.0
