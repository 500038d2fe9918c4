"""What holds for all models."""

import pytest
import torch

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.models import MODELS, ModelSize
from tests.baselines.pairs import batch

PAIRS = batch([[1, 3, 2], [2, 1, 0], [0, 0, 1], [3, 2, 1]], [[(1, 2), (4, 1)], [(2, 1)], [], [(3, 2), (4, 2), (1, 1)]])


def logits(name, pairs, *, seed=0):
    torch.manual_seed(seed)
    size = ModelSize(embedding_dim=5, hidden=(6, 3), num_layers=2, dropout=0.5)
    model = MODELS[name](Vocabularies(fields=(4, 5, 3), max_history=3), size).eval()
    with torch.no_grad():
        for weights in model.parameters():  # away from the small first ones, at which all logits are alike
            weights.add_(torch.randn_like(weights), alpha=0.5)
        return model(pairs)


@pytest.mark.parametrize("name", MODELS)
def test_a_logit_per_pair_that_the_seed_decides(name):
    found = logits(name, PAIRS)
    assert found.shape == (4,) and found.dtype == torch.float32 and found.unique().numel() == 4
    assert torch.equal(found, logits(name, PAIRS))
    assert not torch.equal(found, logits(name, PAIRS, seed=1))


@pytest.mark.parametrize("name", MODELS)
def test_pairs_do_not_see_each_other(name):
    found = logits(name, PAIRS)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(logits(name, Batch(*(part[order] for part in PAIRS))), found[order], atol=1e-6)
    alone = torch.cat([logits(name, Batch(*(part[row : row + 1] for part in PAIRS))) for row in range(4)])
    assert torch.allclose(alone, found, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name):
    padded = Batch(*(part.clone() for part in PAIRS))
    for row, length in enumerate(PAIRS.history_lengths.tolist()):
        padded.history_items[row, length:], padded.history_answers[row, length:] = 2, 1
    assert torch.equal(logits(name, padded), logits(name, PAIRS))
    longer = batch([[1, 3, 2]], [[(1, 2), (4, 1)]], max_history=7)
    assert torch.allclose(logits(name, longer), logits(name, PAIRS)[:1], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_history_and_answers_count_and_their_order_only_for_gru4rec(name):
    history = [(3, 2), (4, 2), (1, 1)]
    found, turned, answered = (
        logits(name, batch([[3, 2, 1]], [entries])) for entries in (history, history[::-1], [(3, 1), *history[1:]])
    )
    assert torch.allclose(found, turned, atol=1e-6) == (name != "GRU4Rec")
    assert not torch.allclose(found, answered, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_trained(name):
    torch.manual_seed(0)
    size = ModelSize(embedding_dim=4, hidden=(16, 16), num_layers=2, dropout=0.0)
    model = MODELS[name](Vocabularies(fields=(4, 5, 3), max_history=3), size)
    model(PAIRS).sum().backward()
    assert [key for key, weights in model.named_parameters() if weights.grad is None] == []
    assert all(weights.grad.isfinite().all() for weights in model.parameters())
