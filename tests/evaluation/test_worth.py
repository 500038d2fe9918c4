"""What the LLM is worth: planted effects are found, noise is called noise, and heads are read at the right pairs."""

import math

import numpy as np
import pytest
import torch

from optirag_core.engine.cost import ModelShape
from optirag_core.engine.heads import ExitHeads, lm_answer_head
from optirag_core.engine.states import LastStates
from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.evaluation.quality import quality
from optirag_core.evaluation.worth import Gain, worth, worth_of
from optirag_core.training.exit_features import ExitFeatures
from tests.conftest import tiny_llama

from .conftest import labelled

LABELS, USERS = [0, 1, 0, 1], ["a", "a", "b", "b"]
RISING, SWAPPED = [0.1, 0.4, 0.6, 0.8], [0.4, 0.1, 0.6, 0.8]
ANSWERS = (7, 11)


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits))


def planted(seed=0, num_users=600, *, of_llm):
    """Scores of a label that the evidence tells in part, and the LLM another part of weight `of_llm`."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), 3)
    evidence, says, unheard = rng.normal(size=(3, 3 * num_users))
    labels = (rng.random(3 * num_users) < sigmoid(evidence + of_llm * says)).astype(int)
    both = evidence + (of_llm * says if of_llm else 0.05 * unheard)  # a trained head keeps some noise of the LLM
    by_layer = {0: sigmoid(evidence), 2: sigmoid(evidence + 0.1 * unheard), 4: sigmoid(both)}
    return worth(labels, users, llm=sigmoid(says), by_layer=by_layer, seed=1)


def test_four_pairs_by_hand():
    by_layer = {4: RISING, 0: SWAPPED, 2: RISING}
    found = worth(LABELS, USERS, llm=SWAPPED, by_layer=by_layer, floors={"best": RISING}, run=SWAPPED, seed=0)
    assert (found.llm.auc, found.evidence.auc, found.both.auc) == (0.5, 0.5, 0.75)
    # User a's losses are -ln 0.9 - ln 0.4 and, swapped, -ln 0.6 - ln 0.1; user b's are equal.
    loss = -math.log(0.9 * 0.4 / (0.6 * 0.1)) / 4
    assert found.over_evidence == Gain((0.25, 0.0, 1.0), pytest.approx((loss, 2.0 * loss, 0.0)))
    assert found.over_llm == found.over_evidence
    assert found.exits == Gain((-0.25, -1.0, 0.0), pytest.approx((-loss, 0.0, -2.0 * loss)))
    assert found.llm_over_floors == {"best": found.exits}
    assert list(found.layers) == [0, 2, 4]
    assert found.layers == {layer: binary_metrics(LABELS, [SWAPPED, RISING][layer > 0]) for layer in (0, 2, 4)}


def test_without_evidence_there_is_the_llm_alone():
    found = worth(LABELS, USERS, llm=RISING, by_layer={2: SWAPPED, 4: RISING}, seed=0)
    assert found.llm == quality(LABELS, RISING, USERS, seed=0)
    assert {found.evidence, found.both, found.over_evidence, found.over_llm, found.exits} == {None}
    assert list(found.layers) == [2, 4]


def test_a_planted_effect_of_the_llm_is_found():
    found = planted(of_llm=1.0)
    assert found.over_evidence.auc.low > 0.0
    assert found.over_evidence.log_loss.high < 0.0
    assert found.over_llm.auc.low > 0.0


def test_an_llm_that_knows_nothing_is_noise():
    found = planted(of_llm=0.0)
    assert found.over_evidence.auc.is_noise
    assert found.over_llm.auc.low > 0.0
    assert found.llm.auc_interval[0] < 0.5 < found.llm.auc_interval[1]


def test_one_class_has_losses_alone():
    found = worth([1, 1], ["a", "b"], llm=[0.5, 0.6], by_layer={0: [0.5, 0.5], 4: [0.6, 0.6]}, seed=0)
    assert found.over_evidence == Gain(None, pytest.approx((math.log(0.5 / 0.6),) * 3))


def test_bad_input_is_named():
    with pytest.raises(DataError, match=r"score is 1\.2"):
        worth([0, 1], ["a", "b"], llm=[0.5, 0.5], by_layer={4: [0.5, 1.2]}, seed=0)
    with pytest.raises(DataError, match="one length"):
        worth([0, 1], ["a", "b"], llm=[0.5, 0.5], by_layer={4: [0.5]}, seed=0)
    with pytest.raises(DataError, match="1 groups for 2 pairs"):
        worth([0, 1], ["a"], llm=[0.5, 0.5], by_layer={4: [0.5, 0.6]}, seed=0)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def features_of(model, *, pairs, evidence):
    generator = torch.Generator().manual_seed(0)
    rows, num_layers = len(pairs), model.config.num_hidden_layers
    zeros = torch.zeros(rows, dtype=torch.int64)
    states = LastStates(
        states=torch.randn(rows, num_layers, model.config.hidden_size, generator=generator),
        layers=tuple(range(1, num_layers + 1)), sizes=(rows,), parts=zeros, prefix_tokens=zeros, suffix_tokens=zeros,
        shape=ModelShape.of(model.config), frozen_prefix_after=None,
    )  # fmt: skip
    users, items = (np.array(column) for column in zip(*pairs, strict=True))
    known = torch.randn(rows, 3, generator=generator) if evidence else None
    return ExitFeatures(users, items, torch.zeros(rows), known, states)


def trained(model, num_features):
    """Heads that are no copies any more."""
    heads = ExitHeads(model, (1, 3), ANSWERS, num_features)
    generator = torch.Generator().manual_seed(1)
    for parameter in heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return heads


SCORED = labelled(
    [
        ("a", "y", 1, 0.9, 2, False),
        ("a", "z", 0, 0.6, 2, False),
        ("b", "y", 1, 0.7, 4, True),
        ("b", "z", 0, 0.2, 4, True),
    ]
)


@pytest.mark.parametrize("num_features", [0, 3])
def test_heads_are_read_at_the_scored_pairs(model, num_features):
    """Rows in another order, one that was not scored, and one scored pair that has no features."""
    pairs = [("b", "z"), ("c", "y"), ("a", "y"), ("b", "y")]
    features, heads = features_of(model, pairs=pairs, evidence=num_features > 0), trained(model, num_features)
    lm_head = lm_answer_head(model, ANSWERS)

    floor = np.array([0.8, 0.5, 0.4, 0.3])

    found = worth_of(features, heads, lm_head, SCORED, floors={"floor": floor}, seed=3)

    def by_hand(head, layer):
        """p(yes) of a y, b y, b z, one by one."""
        scores = []
        for row in (2, 3, 0):
            read = [] if layer == 0 else [features.at(layer)[row]]
            yes, no = head(*read, *([features.evidence[row]] if num_features else []))
            scores.append(float(torch.sigmoid(yes - no)))
        return scores

    layers = (0, 1, 3, 4) if num_features else (1, 3, 4)
    expected = worth(
        [1, 1, 0], ["a", "b", "b"], llm=by_hand(lm_head, 4), run=np.float32([0.9, 0.7, 0.2]), seed=3,
        by_layer={layer: by_hand(heads[layer], layer) for layer in layers}, floors={"floor": floor[[0, 2, 3]]},
    )  # fmt: skip
    losses = [{layer: metrics.log_loss for layer, metrics in each.layers.items()} for each in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert found.llm.log_loss == pytest.approx(expected.llm.log_loss, abs=1e-6)
    assert found.exits.log_loss == pytest.approx(expected.exits.log_loss, abs=1e-6)
    assert found.llm_over_floors["floor"].log_loss == pytest.approx(
        expected.llm_over_floors["floor"].log_loss, abs=1e-6
    )
    assert (found.both is None) == (num_features == 0)


def test_features_of_other_pairs_are_refused(model):
    features = features_of(model, pairs=[("c", "y")], evidence=False)
    with pytest.raises(DataError, match=r"scored none of the test pairs.*requests\.max_users"):
        worth_of(features, trained(model, 0), lm_answer_head(model, ANSWERS), SCORED, floors={}, seed=0)
