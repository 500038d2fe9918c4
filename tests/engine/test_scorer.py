"""The engine against one pair at a time with a softmax over the whole vocabulary."""

import logging
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import MistralConfig

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError
from tests.engine.models import ANSWERS, CONFIGS, SHAPE, random_group, random_heads, tiny_model
from tests.reference import PlainScorer, head_views, score_pair

RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
THRESHOLD_MARGIN = 1e-6
"""Nearer to the threshold than this, rounding decides."""


def mixed_groups() -> list[UserGroup]:
    sizes = [(40, [3, 7, 3, 1]), (1, []), (90, [5]), (17, [2] * 9 + [6, 1]), (1, [4, 4])]
    return [random_group(prefix, suffixes, seed) for seed, (prefix, suffixes) in enumerate(sizes)]


def flat(scores: list[list[PairScore]]) -> list[PairScore]:
    return [pair for pairs in scores for pair in pairs]


@st.composite
def layouts(draw) -> list[UserGroup]:
    sizes = st.tuples(st.integers(1, 300), st.lists(st.integers(1, 30), max_size=20))
    groups = draw(st.lists(sizes, min_size=1, max_size=3))
    return [random_group(prefix, suffixes, draw(st.integers(0, 99))) for prefix, suffixes in groups]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    groups=layouts(),
    criterion=st.sampled_from(["ratio", "probability"]),
    window=st.integers(2, 5),
    exit_share=st.floats(0, 1),
    max_tokens=st.sampled_from([700, 2000, 16384]),
)
def test_any_layout_and_exit_pattern_equals_the_reference(model, groups, criterion, window, exit_share, max_tokens):
    heads = random_heads(model, (5, 6)) if window > 3 else random_heads(model)
    policy = ExitPolicy(criterion, window, 0.0)
    prompts = [[*group.prefix, *suffix] for group in groups for suffix in group.suffixes]
    views = [head_views(model, heads, policy, ANSWERS, prompt) for prompt in prompts]
    seen = torch.tensor([discrepancy for pair in views for _, discrepancy, _ in pair[:-1]] or [0.0])
    policy = replace(policy, threshold=seen.quantile(exit_share).item())

    results = flat(Scorer(model, heads, policy, max_tokens_in_flight=max_tokens).score(groups).scores)

    assert len(results) == len(prompts)
    for pair, result in zip(views, results, strict=True):
        if any(abs(discrepancy - policy.threshold) <= THRESHOLD_MARGIN for _, discrepancy, _ in pair[:-1]):
            continue
        expected = next((view for view in pair[:-1] if view[1] < policy.threshold), pair[-1])
        assert result.exit_layer == expected[0]
        assert result.score == pytest.approx(expected[2], abs=1e-4)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("criterion", ["ratio", "probability", "none"])
def test_families_equal_the_reference(family, criterion):
    model = tiny_model(CONFIGS[family])
    heads, policy = random_heads(model), ExitPolicy(criterion, window=3, threshold=0.02)
    groups = mixed_groups()

    results = Scorer(model, heads, policy).score(groups).scores

    assert [len(pairs) for pairs in results] == [len(group.suffixes) for group in groups]
    for group, pairs in zip(groups, results, strict=True):
        for suffix, pair in zip(group.suffixes, pairs, strict=True):
            expected = score_pair(model, heads, policy, ANSWERS, [*group.prefix, *suffix])
            assert pair.exit_layer == expected.exit_layer
            assert pair.score == pytest.approx(expected.score, abs=1e-4)


def test_the_plain_padded_scorer_agrees(model, heads):
    packed = flat(Scorer(model, heads, RATIO).score(mixed_groups()).scores)
    plain = flat(PlainScorer(model, heads, RATIO, batch_size=4).score(mixed_groups()))

    assert [pair.exit_layer for pair in packed] == [pair.exit_layer for pair in plain]
    assert [pair.score for pair in packed] == pytest.approx([pair.score for pair in plain], abs=1e-4)
    assert len({pair.exit_layer for pair in packed}) > 2


def test_the_order_of_groups_changes_no_score(model, heads):
    groups, order = mixed_groups(), [3, 0, 4, 2, 1]
    scorer = Scorer(model, heads, RATIO, max_tokens_in_flight=400)

    straight = scorer.score(groups).scores
    shuffled = scorer.score([groups[index] for index in order]).scores

    for index, pairs in zip(order, shuffled, strict=True):
        assert [pair.score for pair in pairs] == pytest.approx([pair.score for pair in straight[index]], abs=1e-5)


def test_the_same_groups_give_the_same_bits(model, heads):
    first, second = (Scorer(model, heads, RATIO).score(mixed_groups()).scores for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("threshold", "deterministic", "opened"),
    [
        (0.0, False, [1, 1, 1]),  # nobody stops early; a call's first row finds out
        (0.0, True, [12, 12, 12]),
        (1e9, False, [12, 0, 0]),  # everybody at the first head
    ],
)
def test_a_layer_at_whose_head_few_stop_is_passed_whole(model, heads, monkeypatch, threshold, deterministic, opened):
    groups = [random_group(40, [3, 5, 2], seed) for seed in range(12)]
    policy = replace(RATIO, threshold=threshold)
    scorer = Scorer(model, heads, policy, max_tokens_in_flight=120, deterministic=deterministic)  # a group per step
    open_next, rows = scorer._decoder.open_next, Counter()

    def counted(flight):
        rows[flight.depth + 1] += 1
        return open_next(flight)

    monkeypatch.setattr(scorer._decoder, "open_next", counted)
    first, second = scorer.score(groups).scores, scorer.score(groups).scores

    assert [rows[layer] for layer in scorer.exit_layers] == [2 * count for count in opened]
    assert first == second  # a call starts anew: the same bits
    for group, pairs in zip(groups, first, strict=True):
        for suffix, pair in zip(group.suffixes, pairs, strict=True):
            expected = score_pair(model, heads, policy, ANSWERS, [*group.prefix, *suffix])
            assert pair.exit_layer == expected.exit_layer
            assert pair.score == pytest.approx(expected.score, abs=1e-4)


def test_a_thousand_candidates_run_in_several_parts(model, heads):
    group = random_group(60, [1 + index % 9 for index in range(1000)], seed=5)
    scorer = Scorer(model, heads, RATIO, max_tokens_in_flight=2000)

    scored = scorer.score([group])

    [pairs] = scored.scores
    assert len(pairs) == 1000
    assert scored.figures.cost.prefixes > 1
    for index in (0, 1, 500, 999):
        expected = score_pair(model, heads, RATIO, ANSWERS, [*group.prefix, *group.suffixes[index]])
        assert (pairs[index].score, pairs[index].exit_layer) == (
            pytest.approx(expected.score, abs=1e-4),
            expected.exit_layer,
        )


@pytest.mark.parametrize(
    "group",
    [
        UserGroup([4, 5, 6], [[8, 9, 1], [8, 9, 1]]),  # duplicates
        UserGroup([4, 5, 6], [[8, 9, 1], [8, 9, 2], [8, 9]]),  # the suffixes' first words are shared
        UserGroup([4, 5, 6], [[], [8]]),  # a prompt that is the prefix
        UserGroup([4, 5, 6], [[]]),
        UserGroup([], [[8, 9], [7]]),  # nothing shared
        UserGroup([4], [[], [4]]),
    ],
)
def test_odd_groups_equal_the_reference(model, heads, group):
    [pairs] = Scorer(model, heads, RATIO).score([group]).scores

    for suffix, pair in zip(group.suffixes, pairs, strict=True):
        expected = score_pair(model, heads, RATIO, ANSWERS, [*group.prefix, *suffix])
        assert pair.exit_layer == expected.exit_layer
        assert pair.score == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.parametrize("groups", [[], [UserGroup([1, 2], [])], [UserGroup([], [])]])
def test_nothing_to_score(model, heads, groups):
    scorer = Scorer(model, heads, RATIO)

    scored = scorer.score(groups)

    assert scored.scores == [[] for _ in groups]
    assert (scored.figures.pairs, scored.figures.pairs_per_s) == (0, 0)
    assert len(scorer.trace(groups).final_logits) == 0


class TestRefusedBeforeAnyCompute:
    def refused(self, model, heads, group, *, max_tokens: int = 16384) -> str:
        scorer = Scorer(model, heads, RATIO, max_tokens_in_flight=max_tokens)
        hook = model.model.embed_tokens.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
        try:
            with pytest.raises(ModelError) as raised:
                scorer.score([random_group(3, [2], 0), group])
        finally:
            hook.remove()
        return str(raised.value)

    def test_longer_than_the_context(self, model, heads):
        message = self.refused(model, heads, random_group(500, [1, 13], 0))

        assert "513 tokens, the LLM's context is 512" in message

    def test_longer_than_a_step(self, model, heads):
        message = self.refused(model, heads, random_group(100, [1, 5], 0), max_tokens=200)

        assert "raise engine.max_tokens_in_flight to 210" in message

    def test_no_tokens(self, model, heads):
        assert "no tokens" in self.refused(model, heads, UserGroup([], [[1], []]))


def test_a_sliding_window_limits_the_context():
    model = tiny_model(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=64))

    with pytest.raises(ModelError, match="context is 64"):
        Scorer(model, random_heads(model), RATIO).score([random_group(60, [5], 0)])


def test_out_of_gpu_memory_halves_the_steps_once_and_loses_nothing(model, heads, monkeypatch, caplog):
    groups = [random_group(40, [3] * 20, seed) for seed in range(6)]
    scorer = Scorer(model, heads, RATIO, max_tokens_in_flight=600)
    expected = flat(scorer.score(groups).scores)
    advance, limit = scorer._decoder.advance, 150

    def tight(flight, depth):
        if flight.layout.num_tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return advance(flight, depth)

    monkeypatch.setattr(scorer._decoder, "advance", tight)
    with caplog.at_level(logging.WARNING):
        scored = scorer.score(groups)

    assert scored.figures.halvings == 1
    assert "steps of 150 tokens" in caplog.text
    results = flat(scored.scores)
    assert [pair.exit_layer for pair in results] == [pair.exit_layer for pair in expected]
    assert [pair.score for pair in results] == pytest.approx([pair.score for pair in expected], abs=1e-4)
    limit = 100
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score(groups)
    limit = 300
    assert flat(scorer.score(groups).scores) == expected  # whole steps again, and nothing left of the failed call


def test_a_call_says_what_waits_in_its_queues(model, heads):
    seen = []
    scorer = Scorer(model, heads, replace(RATIO, threshold=0.0), max_tokens_in_flight=200)  # nobody stops early
    watched = scorer.score(mixed_groups(), watch=lambda tokens: seen.append(dict(tokens)))

    assert watched.scores == scorer.score(mixed_groups()).scores
    assert {depth for tokens in seen for depth, waiting in tokens.items() if waiting} == set(scorer.exit_layers)
    assert not any(seen[-1].values())


def test_figures_of_a_call(model, heads):
    scorer = Scorer(model, heads, ExitPolicy("ratio", 3, 1e9))

    figures = scorer.score(mixed_groups()).figures

    assert (figures.pairs, figures.forced, figures.halvings) == (18, 0, 0)
    assert figures.cost.prefix_layers == 3 * figures.cost.prefixes
    assert figures.pairs_per_s == pytest.approx(18 / figures.seconds)
    assert figures.utilisation(1e9) == pytest.approx(figures.cost.flops / figures.seconds / 1e9)


def test_deterministic_bits_do_not_depend_on_what_else_is_scored(model, heads):
    groups = mixed_groups()
    scorer = Scorer(model, heads, RATIO, deterministic=True)

    together = scorer.score(groups).scores

    assert together == [pairs for group in groups for pairs in scorer.score([group]).scores]
    expected = flat(Scorer(model, heads, RATIO).score(groups).scores)
    assert [pair.score for pair in flat(together)] == pytest.approx([pair.score for pair in expected], abs=1e-5)


@pytest.mark.thorough
def test_compiled_layers_give_the_same_scores(model, heads):
    groups = mixed_groups()
    compiled = Scorer(model, heads, RATIO, compile_layers=True)

    results = flat(compiled.score(groups).scores)

    expected = flat(Scorer(model, heads, RATIO).score(groups).scores)
    assert [pair.exit_layer for pair in results] == [pair.exit_layer for pair in expected]
    assert [pair.score for pair in results] == pytest.approx([pair.score for pair in expected], abs=1e-5)
