"""A head's view by hand, and every view beside what the heads say of the same states."""

from dataclasses import replace

import pytest
import torch

from optirag_core.engine.heads import evidence_of
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.views import head_views
from tests.engine.models import EXIT_LAYERS, random_group, random_heads
from tests.training.traces import imagined_trace

NUM_FEATURES = 3
GROUP = random_group(25, [5, 2, 8], seed=0, num_features=NUM_FEATURES)
CONFIDENT = ExitPolicy("confidence", window=2, threshold=0.9, evidence_confidence=0.7)


def test_views_by_hand():
    # Logits of yes ln 3, ln 9 and ln 19, of no 0: p(yes) 0.75, 0.9 and 0.95. The evidence's part is ln 3 everywhere.
    trace, _, _ = imagined_trace(1, evidence_noise=1.0)
    yes = torch.tensor([[3.0, 9.0, 19.0, 9.0], [3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 9.0, 19.0]]).log()
    trace = replace(
        trace,
        logits=torch.stack([yes, torch.zeros_like(yes)], dim=-1)[None],
        final_logits=torch.tensor([[19.0, 1.0]]).log(),
        evidence_logits=torch.tensor([[3.0, 1.0]]).log(),
        evidence_added=torch.full((1, 4), 3.0).log(),
    )

    views = head_views(trace, 0, CONFIDENT, layers=(5, 7))

    assert [(view.layer, view.in_use, view.stops) for view in views] == [
        (0, True, True), (3, False, True), (5, True, False), (7, True, True), (8, True, True),
    ]  # fmt: skip
    assert [view.score for view in views] == pytest.approx([0.75, 0.9, 0.75, 0.95, 0.95])
    assert views[3].values == pytest.approx((0.75, 0.9, 0.95))
    assert [view.statistic for view in views[:-1]] == pytest.approx([0.75, 0.9, 0.75, 0.95])
    # ln 3 = 1.098612; ln 9 - ln 3 = 1.098612, ln 3 - ln 3 = 0, ln 19 - ln 3 = 1.845827
    assert [view.evidence_logit for view in views] == pytest.approx([1.098612] * 5)
    assert [view.text_logit for view in views[1:]] == pytest.approx([1.098612, 0.0, 1.845827, 1.845827], abs=1e-6)
    assert (views[0].text_logit, views[-1].statistic, views[-1].values) == (None, None, (views[-1].score,))


def test_the_evidence_is_in_use_only_where_the_policy_asks_it():
    trace, _, _ = imagined_trace(1, evidence_noise=1.0)
    first = head_views(trace, 0, replace(CONFIDENT, evidence_confidence=None), layers=())[0]
    assert (first.layer, first.in_use, first.stops) == (0, False, False)


def test_without_evidence_all_is_text(model, heads):
    policy = ExitPolicy("none", window=3, threshold=0.0)
    scorer = Scorer(model, heads, policy)
    for view in head_views(scorer.trace([GROUP]), 0, policy, scorer.exit_layers):
        assert view.evidence_logit is None
        assert view.text_logit == pytest.approx(torch.logit(torch.tensor(view.score)).item(), abs=1e-4)
        assert view.in_use == view.stops == (view.layer == 7)


def test_parts_are_what_the_heads_make_of_evidence_and_states(model):
    informed = random_heads(model, num_features=NUM_FEATURES)
    policy = ExitPolicy("ratio", window=3, threshold=0.05, evidence_confidence=0.6)
    scorer = Scorer(model, informed, policy)
    trace, known = scorer.trace([GROUP]), evidence_of(GROUP, NUM_FEATURES)
    for pair in range(3):
        views = {view.layer: view for view in head_views(trace, pair, policy, scorer.exit_layers)}
        assert list(views) == [0, *EXIT_LAYERS, 7]
        for layer in (*EXIT_LAYERS, 7):
            evidence = informed[layer].evidence
            assert views[layer].evidence_logit == pytest.approx((known[pair] @ evidence.weight + evidence.bias).item())
            logit = views[layer].evidence_logit + views[layer].text_logit
            assert views[layer].score == pytest.approx(torch.sigmoid(torch.tensor(logit)).item(), abs=1e-6)


def test_a_scorer_names_where_pairs_may_stop(model, heads):
    informed = random_heads(model, num_features=NUM_FEATURES)
    ratio = ExitPolicy("ratio", window=3, threshold=0.05)
    scorers = [
        Scorer(model, heads, ratio),
        Scorer(model, informed, replace(ratio, evidence_confidence=0.6), layers=(5,)),
        Scorer(model, heads, replace(ratio, criterion="none")),
    ]
    assert [scorer.layers for scorer in scorers] == [(3, 5, 6, 7), (0, 5, 7), (7,)]
    assert [scorer.num_features for scorer in scorers] == [0, NUM_FEATURES, 0]
    assert scorers[0].shape.num_layers == 7
