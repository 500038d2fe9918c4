"""The head on the evidence alone is an exit like any other: who stops there is not run."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optirag_core.engine.cost import Cost
from optirag_core.engine.criterion import statistic, window_values
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.heads import p_yes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.trace import Trace
from optirag_core.errors import ConfigError
from tests.engine.models import random_group, random_heads, replay

NUM_FEATURES = 3
SIZES = [(30, [5, 2, 5, 1, 8, 3]), (20, []), (60, [3]), (12, [4, 2, 9, 4, 1, 1, 6, 5, 5, 2]), (25, [7, 7])]
GROUPS = [random_group(*sizes, seed, num_features=NUM_FEATURES) for seed, sizes in enumerate(SIZES)]
RATIO = ExitPolicy("ratio", window=3, threshold=0.05)


@pytest.fixture(scope="module")
def informed(model):
    return random_heads(model, num_features=NUM_FEATURES)


@pytest.fixture(scope="module")
def trace(model, informed):
    return Scorer(model, informed, RATIO, max_tokens_in_flight=160).trace(GROUPS)


def confidences(trace) -> torch.Tensor:
    yes = p_yes(trace.evidence_logits)
    return torch.maximum(yes, 1 - yes).sort().values


def flat(scores: list[list[PairScore]]) -> list[PairScore]:
    return [pair for pairs in scores for pair in pairs]


def middle(values: torch.Tensor, share: float) -> float:
    """A threshold that no value is near to: in the widest gap of the next quarter."""
    values = values.sort().values
    start = int(share * (len(values) - 2))
    near = values[start : start + max(2, len(values) // 4)]
    widest = int(near.diff().argmax())
    return float(near[widest : widest + 2].mean())


def test_who_is_sure_stops_there_with_its_own_score_and_the_others_score_as_without(model, informed, trace):
    sure = replace(RATIO, evidence_confidence=middle(confidences(trace), 0.4))

    came = flat(Scorer(model, informed, sure).score(GROUPS).scores)

    others = flat(Scorer(model, informed, RATIO).score(GROUPS).scores)
    scores = p_yes(trace.evidence_logits).tolist()
    for pair, other, score in zip(came, others, scores, strict=True):
        if max(score, 1 - score) >= sure.evidence_confidence:
            assert pair == PairScore(pytest.approx(score, abs=1e-7), 0)
        else:
            assert (pair.exit_layer, pair.score) == (other.exit_layer, pytest.approx(other.score, abs=1e-5))
    assert len({pair.exit_layer for pair in came}) > 3
    assert 0 < sum(pair.exit_layer == 0 for pair in came) < len(came)


def test_no_token_of_who_stops_is_run(model, informed, trace):
    sure = replace(RATIO, evidence_confidence=middle(confidences(trace), 0.1))
    seen = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    scored = Scorer(model, informed, sure).score(GROUPS)
    hook.remove()

    run = [pair.exit_layer > 0 for pair in flat(scored.scores)]
    suffixes = [tokens for tokens, runs in zip(trace.suffix_tokens.tolist(), run, strict=True) if runs]
    prefixes = {
        group: tokens
        for group, tokens, runs in zip(trace.user_groups.tolist(), trace.prefix_tokens.tolist(), run, strict=True)
        if runs
    }
    assert sum(seen) == sum(suffixes) + sum(prefixes.values())
    assert scored.figures.cost.prefixes == len(prefixes) < sum(1 for group in GROUPS if group.suffixes)


def test_groups_of_which_all_stop_cost_nothing_and_are_handed_back(model, informed):
    scorer = Scorer(model, informed, replace(RATIO, evidence_confidence=0.5))
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    try:
        scored = scorer.score(GROUPS)
        numbers = scorer.add(GROUPS)
        stepped = scorer.step()
    finally:
        hook.remove()

    assert {pair.exit_layer for pair in flat(scored.scores)} == {0}
    assert scored.figures.cost == Cost()
    assert [len(pairs) for pairs in scored.scores] == [len(group.suffixes) for group in GROUPS]
    assert sorted(group.number for group in stepped) == numbers
    assert scorer.is_finished


def test_without_a_confidence_nobody_stops_there(model, informed, trace):
    assert min(pair.exit_layer for pair in flat(Scorer(model, informed, RATIO).score(GROUPS).scores)) > 0
    assert min(pair.exit_layer for pair in flat(replay(trace, RATIO).scores)) > 0


def test_group_stop_counts_at_depth_0(model, informed):
    """Three of four are sure; the fourth stops with them, unless a group of one is large enough."""
    heads = random_heads(model, num_features=NUM_FEATURES)
    heads.start_from_evidence(torch.tensor([1.0, 0.0, 0.0]), 0.0)
    group = UserGroup([5, 6, 7], [[1], [2], [3, 4], [5]], [[9.0, 0, 0], [-9.0, 0, 0], [0.1, 0, 0], [9.0, 0, 0]])
    layers = []
    for k_min in (1, 2):
        policy = replace(RATIO, criterion="none", evidence_confidence=0.99, group_stop=k_min)
        [pairs] = Scorer(model, heads, policy).score([group]).scores
        layers.append([(pair.exit_layer, pair.forced) for pair in pairs])
    alone = (0, False)
    assert layers == [[alone, alone, (7, False), alone], [alone, alone, (0, True), alone]]
    assert pairs[2].score == pytest.approx(1 / (1 + 2.718281828**-0.1), abs=1e-6)


def test_groups_that_stop_in_part_go_on_between_others(model, informed, trace):
    policy = replace(RATIO, evidence_confidence=middle(confidences(trace), 0.4), group_stop=2)
    online = Scorer(model, informed, policy, max_tokens_in_flight=160)
    numbers, scored = [], {}
    for group in GROUPS:
        numbers += online.add([group])
        scored |= {done.number: done.scores for done in online.step()}
    while not online.is_finished:
        scored |= {done.number: done.scores for done in online.step()}

    together = flat(Scorer(model, informed, policy).score(GROUPS).scores)
    apart = flat([scored[number] for number in numbers])
    assert [(pair.exit_layer, pair.forced) for pair in apart] == [(pair.exit_layer, pair.forced) for pair in together]


def test_heads_without_evidence_have_no_depth_0(model, heads):
    sure = replace(RATIO, evidence_confidence=0.9)
    with pytest.raises(ConfigError, match=r"evidence_confidence 0.9 asks the head at depth 0, and these heads read no"):
        Scorer(model, heads, sure)
    with pytest.raises(ConfigError, match=r"evidence_confidence 0.9 asks the head at depth 0, and the traced heads"):
        replay(Scorer(model, heads, RATIO).trace(GROUPS), sure)


def statistics(trace: Trace, policy: ExitPolicy) -> torch.Tensor:
    windows = trace.logits[:, :, -policy.window - 1 :].flatten(0, 1)  # [R * L, m+1, 2]
    return statistic(window_values(windows, policy.criterion), policy.criterion)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    criterion=st.sampled_from(["ratio", "probability", "confidence", "entropy", "patience", "none"]),
    window=st.sampled_from([2, 3]),
    share=st.floats(0, 0.9),
    evidence_share=st.none() | st.floats(0, 1),
    group_stop=st.none() | st.integers(1, 6),
    max_tokens=st.sampled_from([160, 16384]),
)
def test_any_policy_replayed_equals_its_live_run(
    model, informed, criterion, window, share, evidence_share, group_stop, max_tokens
):
    trace = Scorer(model, informed, RATIO, max_tokens_in_flight=max_tokens).trace(GROUPS)
    policy = ExitPolicy(criterion, window, 0.0, group_stop=group_stop)
    policy = replace(policy, threshold=middle(statistics(trace, policy), share))
    if evidence_share is not None:
        policy = replace(policy, evidence_confidence=middle(confidences(trace), evidence_share))

    outcome = trace.outcome(policy)
    live = Scorer(model, informed, policy, max_tokens_in_flight=max_tokens).score(GROUPS)

    pairs = flat(live.scores)
    assert outcome.exit_layers.tolist() == [pair.exit_layer for pair in pairs]
    assert outcome.forced.tolist() == [pair.forced for pair in pairs]
    assert p_yes(outcome.logits).tolist() == pytest.approx([pair.score for pair in pairs], abs=1e-5)
    assert outcome.cost == live.figures.cost
