"""Signals that a model's interaction can express, and a model without it cannot.

The MLPs have no hidden layers where they could do the interaction's work.
"""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.models import MODELS, ModelSize

LAYERED = ["AutoInt", "DCNv2", "WuKong", "GDCN", "EulerNet"]


def auc_after_training(name, train, test, *, hidden=(), num_layers=2, steps=80):
    """AUC on `test` after `steps` of Adam on all of `train` at once; both are a batch and its labels."""
    torch.manual_seed(0)
    vocabularies = Vocabularies(fields=(13, 13), max_history=4)
    model = MODELS[name](vocabularies, ModelSize(embedding_dim=8, hidden=hidden, num_layers=num_layers, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(train[0]), train[1]).backward()
        optimizer.step()
    with torch.no_grad():
        return roc_auc_score(test[1], model(test[0]))


def parity():
    """12 users and 12 items, liked where user and item are both even or both odd: no user and no item has an effect.

    A third of the cells is held out; with and without them every user and every item has as many liked as not.
    """
    cells = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    liked = (cells.sum(dim=1) % 2 == 0).float()
    held_out = cells.diff(dim=1)[:, 0] % 3 == 0
    return tuple((_pairs(cells[rows] + 1), liked[rows]) for rows in (~held_out, held_out))


def answers_given(num_pairs=600):
    """The candidate was rated before: liked again where it was liked. Two of four ratings were likes, whichever."""
    generator = torch.Generator().manual_seed(0)
    items = torch.rand(num_pairs, 12, generator=generator).argsort(dim=1)[:, :4] + 1
    answers = torch.rand(num_pairs, 4, generator=generator).argsort(dim=1) % 2 + 1
    fields = torch.stack([torch.ones(num_pairs, dtype=torch.int64), items[:, 0]], dim=1)
    order = torch.rand(num_pairs, 4, generator=generator).argsort(dim=1)
    liked = (answers[:, 0] == 2).float()
    return _halves(_pairs(fields, items.gather(1, order), answers.gather(1, order)), liked)


def order_of_two(num_pairs=600):
    """Items 1 and 2 are in every history, among others; liked where 1 came first."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(3, 13, (num_pairs, 4), generator=generator)
    places = torch.rand(num_pairs, 4, generator=generator).argsort(dim=1)[:, :2]
    items.scatter_(1, places, torch.tensor([1, 2]).expand(num_pairs, 2))
    fields = torch.randint(1, 13, (num_pairs, 2), generator=generator)
    return _halves(_pairs(fields, items, torch.full_like(items, 2)), (places[:, 0] < places[:, 1]).float())


def _pairs(fields, items=None, answers=None):
    if items is None:
        items = answers = torch.zeros(len(fields), 4, dtype=torch.int64)
    return Batch(fields, items, answers, (answers > 0).sum(dim=1))


def _halves(pairs, liked):
    middle = len(liked) // 2
    return tuple((Batch(*(part[rows] for part in pairs)), liked[rows]) for rows in (slice(middle), slice(middle, None)))


@pytest.mark.parametrize("name", ["DeepFM", *LAYERED])
def test_a_product_of_two_fields_is_learned(name):
    assert auc_after_training(name, *parity()) > 0.9


@pytest.mark.parametrize("name", LAYERED)
def test_the_layers_are_what_learns_it(name):
    assert abs(auc_after_training(name, *parity(), num_layers=0) - 0.5) < 0.15


def test_attention_finds_the_candidates_own_entry_and_a_mean_does_not():
    assert auc_after_training("DIN", *answers_given()) > 0.9
    assert abs(auc_after_training("DeepFM", *answers_given(), hidden=(32,)) - 0.5) < 0.15


def test_recurrence_sees_the_order_and_a_weighted_sum_does_not():
    assert auc_after_training("GRU4Rec", *order_of_two()) > 0.9
    assert abs(auc_after_training("DIN", *order_of_two(), hidden=(32,)) - 0.5) < 0.15
