"""A replayed trace returns what a live run returns, and costs what it costs."""

from dataclasses import replace

import pytest
import torch

from optirag_core.engine.criterion import discrepancy, window_values
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.views import head_views as views_of
from optirag_core.errors import ConfigError
from tests.engine.models import ANSWERS, EXIT_LAYERS, random_group, random_heads, replay
from tests.reference import head_views

GROUPS = [random_group(30 + 20 * seed, [2, 5, 5, 1, 8, 3][: 2 + seed], seed) for seed in range(5)]
MAX_TOKENS = 300
POLICY = ExitPolicy("ratio", window=3, threshold=0.0)


def scorer(model, heads, policy: ExitPolicy) -> Scorer:
    return Scorer(model, heads, policy, max_tokens_in_flight=MAX_TOKENS)


@pytest.fixture(scope="module")
def trace(model, heads):
    return scorer(model, heads, POLICY).trace(GROUPS)


def threshold_between(trace, policy: ExitPolicy, share: float) -> float:
    """A threshold that no discrepancy is near to."""
    seen = discrepancy(window_values(trace.logits[:, :, -policy.window - 1 :].flatten(0, 1), policy.criterion))
    seen = seen.sort().values
    index = int(share * (len(seen) - 2))
    return float(seen[index : index + 2].mean())


@pytest.mark.parametrize("criterion", ["ratio", "probability", "none"])
@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("share", [0.2, 0.6])
@pytest.mark.parametrize("group_stop", [None, 2, 4])
def test_replay_equals_a_live_run(model, heads, trace, criterion, window, share, group_stop):
    policy = ExitPolicy(criterion, window, 0.0, group_stop=group_stop)
    policy = replace(policy, threshold=threshold_between(trace, policy, share))
    live = scorer(model, heads, policy)

    expected, replayed = live.score(GROUPS), replay(trace, policy)

    for pairs, others in zip(replayed.scores, expected.scores, strict=True):
        assert [(pair.exit_layer, pair.forced) for pair in pairs] == [(pair.exit_layer, pair.forced) for pair in others]
        assert [pair.score for pair in pairs] == pytest.approx([pair.score for pair in others], abs=1e-5)
    assert replayed.cost == expected.figures.cost


def test_group_stop_forces_some_pairs(trace):
    policy = replace(POLICY, group_stop=4, threshold=threshold_between(trace, POLICY, 0.6))

    forced = [pair.forced for pairs in replay(trace, policy).scores for pair in pairs]

    assert 0 < sum(forced) < len(forced)


@pytest.mark.parametrize("frozen_after", [1, 3, 4, 6])
def test_replay_equals_a_live_run_above_a_frozen_prefix(model, heads, frozen_after):
    policy = replace(POLICY, frozen_prefix_after=frozen_after)
    frozen = scorer(model, heads, policy).trace(GROUPS)
    policy = replace(policy, threshold=threshold_between(frozen, policy, 0.4))
    live = scorer(model, heads, policy)

    expected, replayed = live.score(GROUPS), replay(frozen, policy)

    layers = [pair.exit_layer for pairs in expected.scores for pair in pairs]
    assert [pair.exit_layer for pairs in replayed.scores for pair in pairs] == layers
    assert [pair.score for pairs in replayed.scores for pair in pairs] == pytest.approx(
        [pair.score for pairs in expected.scores for pair in pairs], abs=1e-5
    )
    assert replayed.cost == expected.figures.cost
    assert (expected.figures.cost.frozen_token_layers > 0) == (frozen_after < max(layers) - 1)


def test_a_prefix_frozen_at_the_top_changes_nothing_and_one_frozen_low_does(model, heads, trace):
    top, low = (
        scorer(model, heads, replace(POLICY, frozen_prefix_after=layer)).trace(GROUPS).final_logits for layer in (6, 1)
    )

    assert torch.allclose(top, trace.final_logits, atol=1e-5)
    assert not torch.allclose(low, trace.final_logits, atol=1e-3)


def test_fewer_exit_layers_can_be_replayed(model, heads, trace):
    policy = replace(POLICY, threshold=threshold_between(trace, POLICY, 0.5))
    fewer = random_heads(model, EXIT_LAYERS[1:])
    for layer in (*EXIT_LAYERS[1:], model.config.num_hidden_layers):
        fewer[layer].load_state_dict(heads[layer].state_dict())

    expected = scorer(model, fewer, policy).score(GROUPS).scores

    layers = [pair.exit_layer for pairs in replay(trace, policy, layers=EXIT_LAYERS[1:]).scores for pair in pairs]
    assert layers == [pair.exit_layer for pairs in expected for pair in pairs]


def test_views_equal_the_reference(model, heads, trace):
    policy = replace(POLICY, threshold=0.05)
    pair = 0
    for group in GROUPS:
        for suffix in group.suffixes:
            expected = head_views(model, heads, policy, ANSWERS, [*group.prefix, *suffix])
            for view, (layer, gap, score) in zip(views_of(trace, pair, policy, EXIT_LAYERS), expected, strict=True):
                assert view.layer == layer
                assert view.score == pytest.approx(score, abs=1e-5)
                if layer in EXIT_LAYERS:
                    assert view.statistic == pytest.approx(gap, abs=1e-4)
                    assert view.stops == (view.statistic < 0.05)
            pair += 1


@pytest.mark.parametrize(
    ("policy", "layers", "message"),
    [
        (replace(POLICY, window=4), None, "wider than the traced 3"),
        (replace(POLICY, frozen_prefix_after=2), None, "changes hidden states"),
        (POLICY, (3, 4), r"\[4\] were not traced"),
    ],
)
def test_what_a_trace_cannot_tell_is_refused(trace, policy, layers, message):
    with pytest.raises(ConfigError, match=message):
        replay(trace, policy, layers=layers)


@pytest.mark.parametrize("layers", [(), (5,), (5, 6)])
def test_a_live_run_uses_the_exit_layers_that_it_is_given(model, heads, trace, layers):
    policy = replace(POLICY, threshold=threshold_between(trace, POLICY, 0.5))
    live = Scorer(model, heads, policy, layers=layers, max_tokens_in_flight=MAX_TOKENS).score(GROUPS)

    replayed = replay(trace, policy, layers=layers)

    expected = [pair.exit_layer for pairs in live.scores for pair in pairs]
    assert [pair.exit_layer for pairs in replayed.scores for pair in pairs] == expected
    assert set(expected) <= {*layers, 7}
    assert replayed.cost == live.figures.cost


def test_some_groups_replay_as_in_the_whole(trace):
    policy = replace(POLICY, group_stop=2, threshold=threshold_between(trace, POLICY, 0.5))
    chosen = torch.isin(trace.user_groups, torch.tensor([1, 3]))

    some, whole = replay(trace.of_pairs(chosen), policy), replay(trace, policy)

    assert some.scores == [whole.scores[1], whole.scores[3]]
    others = replay(trace.of_pairs(~chosen), policy)
    assert some.cost + others.cost == whole.cost
