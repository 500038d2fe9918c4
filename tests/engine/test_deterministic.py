"""In deterministic mode a group's scores are the same bits alone and among any others, in any order."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import random_group, random_heads

NUM_FEATURES = 3
SIZES = [(1, [1]), (30, [5, 2, 5, 1, 8, 3]), (60, [3]), (12, [4, 2, 9, 4, 1, 1, 6, 5, 5, 2]), (80, [7] * 12), (25, [9])]
GROUPS = [random_group(*sizes, seed, num_features=NUM_FEATURES) for seed, sizes in enumerate(SIZES)]
RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
POLICIES = {
    "ratio": RATIO,
    "evidence": replace(RATIO, evidence_confidence=0.8),
    "group_stop": replace(RATIO, group_stop=3),
    "frozen_prefix": replace(RATIO, frozen_prefix_after=2),
}


@pytest.fixture(scope="module")
def scorers(model):
    """Steps of 110 tokens: the groups of 12 candidates are sliced into several rows."""
    heads = random_heads(model, num_features=NUM_FEATURES)
    return {
        name: Scorer(model, heads, policy, max_tokens_in_flight=220, deterministic=True)
        for name, policy in POLICIES.items()
    }


@pytest.fixture(scope="module")
def alone(scorers) -> dict[str, list[list[PairScore]]]:
    return {
        name: [pairs for group in GROUPS for pairs in scorer.score([group]).scores] for name, scorer in scorers.items()
    }


@pytest.mark.parametrize("name", POLICIES)
@given(arrivals=st.lists(st.lists(st.sampled_from(range(len(GROUPS))), max_size=4), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_bits_depend_on_the_group_alone(scorers, alone, name, arrivals):
    scorer, order, came = scorers[name], [], {}
    for chosen in arrivals:  # a step between two arrivals
        order += zip(scorer.add([GROUPS[index] for index in chosen]), chosen, strict=True)
        came |= {group.number: group.scores for group in scorer.step()}
    while not scorer.is_finished:
        came |= {group.number: group.scores for group in scorer.step()}

    assert [came[number] for number, _ in order] == [alone[name][index] for _, index in order]


def test_the_default_mode_has_other_last_bits_and_the_same_scores(model, scorers, alone):
    """Or the test above shows nothing."""
    scorer = Scorer(model, random_heads(model, num_features=NUM_FEATURES), RATIO, max_tokens_in_flight=220)

    together = flat(scorer.score(GROUPS).scores)

    assert together != flat([pairs for group in GROUPS for pairs in scorer.score([group]).scores])
    expected = flat(alone["ratio"])
    assert [pair.exit_layer for pair in together] == [pair.exit_layer for pair in expected]
    assert [pair.score for pair in together] == pytest.approx([pair.score for pair in expected], abs=1e-5)


@pytest.mark.parametrize("max_waits", [1, 3])
def test_an_age_limit_changes_no_score(model, max_waits):
    heads = random_heads(model, num_features=NUM_FEATURES)
    limited, free = (
        Scorer(model, heads, RATIO, max_tokens_in_flight=220, max_waits=limit) for limit in (max_waits, None)
    )
    arrivals: Sequence[UserGroup] = GROUPS * 3
    ours, expected = flat(limited.score(arrivals).scores), flat(free.score(arrivals).scores)
    assert [pair.exit_layer for pair in ours] == [pair.exit_layer for pair in expected]
    assert [pair.score for pair in ours] == pytest.approx([pair.score for pair in expected], abs=1e-5)


def test_nobody_starves_while_others_come(model):
    """A group that no head stops, and one new group before each step, of which each is scored at the first head."""
    heads = random_heads(model, num_features=NUM_FEATURES)
    policy = ExitPolicy("confidence", window=2, threshold=0.9)
    plain = Scorer(model, heads, policy)
    many = [random_group(40, [5], seed, num_features=NUM_FEATURES) for seed in range(60)]
    layers = [pairs[0].exit_layer for pairs in plain.score(many).scores]
    slow, quick = many[layers.index(7)], many[layers.index(3)]
    waits = {}
    for limit in (2, None):
        scorer = Scorer(model, heads, policy, max_tokens_in_flight=100, max_waits=limit)
        [number] = scorer.add([slow])
        waits[limit] = 0
        while number not in [group.number for group in scorer.step()] and waits[limit] < 40:
            scorer.add([quick])
            waits[limit] += 1
    # heads at 3, 5, 6 and 7: behind the first step three more, of which each is passed over twice
    assert waits == {2: 9, None: 40}


def flat(scores: list[list[PairScore]]) -> list[PairScore]:
    return [pair for pairs in scores for pair in pairs]
