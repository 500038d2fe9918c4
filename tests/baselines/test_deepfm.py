import torch

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.deepfm import DeepFm, second_order
from optirag_core.baselines.size import ModelSize
from tests.baselines.pairs import batch


def test_second_order_by_hand():
    """Equation 2: <(1,2), (3,-1)> + <(1,2), (0,4)> + <(3,-1), (0,4)> = 1 + 8 - 4."""
    vectors = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])
    assert second_order(vectors).tolist() == [5.0]


def test_first_order_second_order_and_the_mlp_add_up():
    """User 2 and item 3, no history: first order 10 + 20, second order 2 * 3, MLP 5 * 2 + 7 * 3 + 1000."""
    model = DeepFm(Vocabularies(fields=(2, 2), max_history=3), ModelSize(1, hidden=(), num_layers=0, dropout=0.0))
    with torch.no_grad():
        for table, value in zip([*model.weights.tables, *model.embedding.tables], (10, 20, 2, 3), strict=True):
            table.weight[1] = value
        model.deep[0].weight[0] = torch.tensor([5.0, 7.0, 11.0])
        model.deep[0].bias[0] = 1000
    assert model(batch([[1, 1]])).tolist() == [30 + 6 + 1031]
