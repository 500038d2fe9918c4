import torch

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from tests.baselines.pairs import batch


def embedding():
    """Users 10, 20; items 1, 2, 4; answers 100 (not liked), 200 (liked); 0 where unknown. One number per vector."""
    model = PairEmbedding(Vocabularies(fields=(3, 4), max_history=3), 1)
    for table, values in zip([*model.tables, model.answers], ([0, 10, 20], [0, 1, 2, 4], [0, 100, 200]), strict=True):
        table.weight.data = torch.tensor(values, dtype=torch.float32)[:, None]
    return model


def test_the_fields_and_the_mean_of_the_history():
    """Entries 1 + 200 and 4 + 100: mean (201 + 104) / 2."""
    pair = batch([[1, 2], [2, 0]], [[(1, 2), (3, 1)], []])
    assert embedding().history(pair)[..., 0].tolist() == [[201, 104, 0], [0, 0, 0]]
    assert embedding()(pair)[..., 0].tolist() == [[10, 2, 152.5], [20, 0, 0]]


def test_the_history_reads_the_items_own_vectors():
    model = embedding()
    model.tables[1].weight.data[3] = 7
    assert model.history(batch([[1, 2]], [[(3, 1)]]))[0, 0, 0] == 107


def test_what_is_written_into_the_padding_counts_for_nothing():
    pair = batch([[1, 2]], [[(1, 2)]])
    pair.history_items[0, 1:], pair.history_answers[0, 1:] = 3, 2
    assert torch.equal(embedding()(pair), embedding()(batch([[1, 2]], [[(1, 2)]])))


def test_unknown_begins_at_zero_and_is_learned_where_it_is_met():
    model = PairEmbedding(Vocabularies(fields=(3, 4), max_history=3), 2)
    unknown = model(batch([[0, 0]]))
    assert not unknown.any()
    unknown.sum().backward()
    assert [table.weight.grad[0].tolist() for table in model.tables] == [[1, 1], [1, 1]]
