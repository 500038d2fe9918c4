import torch

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.din import ActivationUnit, Din
from optirag_core.baselines.size import ModelSize
from tests.baselines.pairs import batch


def product_unit(unit):
    """Set a(e, v) = ReLU(e v) + 0.5 ReLU(v - e), for vectors of one number; the MLP reads v, e, v - e, e v."""
    with torch.no_grad():
        for weights in unit.parameters():
            weights.zero_()
        unit.weight[0].weight[0, 3] = unit.weight[0].weight[1, 2] = 1
        unit.weight[-1].weight[0, :2] = torch.tensor([1.0, 0.5])


def test_attention_weights_by_hand():
    """Candidate 3: entry 2 gives 6 + 1 / 2, entry -1 gives 0 + 4 / 2, entry 5 gives 15 + 0. They need not add to 1."""
    unit = ActivationUnit(1)
    product_unit(unit)
    assert unit(torch.tensor([[3.0]]), torch.tensor([[[2.0], [-1.0], [5.0]]])).tolist() == [[6.5, 2.0, 15.0]]


def test_the_interest_is_the_weighted_sum_of_the_history():
    """Equation 3. User 10, item 3, history 2, 5: 6.5 * 2 + 15 * 5 = 88; the regression gives 10 + 2 * 3 + 4 * 88."""
    model = Din(Vocabularies(fields=(2, 4), max_history=3), ModelSize(1, hidden=(), num_layers=0, dropout=0.0))
    product_unit(model.attention)
    with torch.no_grad():
        model.embedding.tables[0].weight[1] = 10
        model.embedding.tables[1].weight[1:] = torch.tensor([[3.0], [2.0], [5.0]])
        model.embedding.answers.weight.zero_()
        model.deep[0].weight[0], model.deep[0].bias[0] = torch.tensor([1.0, 2.0, 4.0]), 0
    assert model(batch([[1, 1], [1, 1]], [[(2, 1), (3, 2)], []])).tolist() == [10 + 6 + 4 * 88, 10 + 6]
