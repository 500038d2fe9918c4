"""Groups that come while others are in flight score as all at once."""

import pytest

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError, OptiragError
from tests.engine.models import random_group

RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
GROUPS = [random_group(20 + 7 * number, [1 + index % 4 for index in range(number)], number) for number in range(12)]


def scorer(model, heads, *, max_tokens: int = 400, policy: ExitPolicy = RATIO, deterministic: bool = False) -> Scorer:
    return Scorer(model, heads, policy, max_tokens_in_flight=max_tokens, deterministic=deterministic)


def scores_of(online: Scorer, arrivals: list[list[UserGroup]]) -> list[list[PairScore]]:
    """Scores of groups of which some arrive before each step."""
    numbers, scored = [], {}
    waiting = list(arrivals)
    while waiting or not online.is_finished:
        if waiting:
            numbers += online.add(waiting.pop(0))
        scored |= {group.number: group.scores for group in online.step()}
    return [scored[number] for number in numbers]


@pytest.mark.parametrize("at_a_time", [1, 2, 5])
def test_groups_added_between_steps_score_as_all_at_once(model, heads, at_a_time):
    arrivals = [GROUPS[start : start + at_a_time] for start in range(0, len(GROUPS), at_a_time)]

    scores = scores_of(scorer(model, heads), arrivals)

    expected = scorer(model, heads).score(GROUPS).scores
    for pairs, others in zip(scores, expected, strict=True):
        assert [pair.exit_layer for pair in pairs] == [pair.exit_layer for pair in others]
        assert [pair.score for pair in pairs] == pytest.approx([pair.score for pair in others], abs=1e-5)


def test_deterministic_bits_do_not_depend_on_when_a_group_came(model, heads):
    scores = scores_of(scorer(model, heads, deterministic=True), [[group] for group in GROUPS])

    assert scores == scorer(model, heads, deterministic=True).score(GROUPS).scores


def test_a_group_is_handed_back_once_by_the_step_that_finishes_it(model, heads):
    online = scorer(model, heads)
    first = online.add(GROUPS[3:6])
    online.step()
    second = online.add([GROUPS[7], GROUPS[0]])  # the last one has no candidates
    handed_back = []
    while not online.is_finished:
        handed_back += online.step()

    assert sorted(group.number for group in handed_back) == sorted([*first, *second])
    assert {group.number: len(group.scores) for group in handed_back} == dict(
        zip([*first, *second], [3, 4, 5, 7, 0], strict=True)
    )
    assert online.step() == []


def test_costs_of_groups_add_up_to_those_of_a_call(model, heads):
    online, figures = scorer(model, heads), scorer(model, heads).score(GROUPS).figures
    online.add(GROUPS)
    costs = []
    while not online.is_finished:
        costs += [group.cost.flops for group in online.step()]

    assert sum(costs) == pytest.approx(figures.cost.flops, rel=1e-12)


def test_a_refused_group_keeps_out_those_that_came_with_it_and_nothing_else(model, heads):
    online = scorer(model, heads)
    [number] = online.add([GROUPS[3]])

    with pytest.raises(ModelError, match="no tokens"):
        online.add([GROUPS[4], UserGroup([], [[]])])

    scored = []
    while not online.is_finished:
        scored += online.step()
    assert [group.number for group in scored] == [number]


def test_score_takes_the_scorer_for_itself(model, heads):
    online = scorer(model, heads)
    online.add(GROUPS[3:5])

    with pytest.raises(OptiragError, match="2 groups are in flight"):
        online.score(GROUPS)

    while not online.is_finished:
        online.step()
    assert online.score(GROUPS).scores == scorer(model, heads).score(GROUPS).scores


def test_a_head_that_stops_few_is_known_to_the_groups_behind(model, heads, monkeypatch):
    online = scorer(model, heads, policy=ExitPolicy("ratio", window=3, threshold=0.0))  # nobody stops early
    open_next, depths = online._decoder.open_next, []
    monkeypatch.setattr(online._decoder, "open_next", lambda flight: depths.append(flight.depth) or open_next(flight))

    for group in GROUPS[3:6]:
        scores_of(online, [[group]])  # nothing is in flight in between

    last = online.shape.num_layers - 1  # where no pair goes on: always opened
    assert [depth for depth in depths if depth < last] == [layer - 1 for layer in online.exit_layers]  # by one group


def test_a_step_that_fails_leaves_nothing_in_flight(model, heads, monkeypatch):
    online = scorer(model, heads)
    online.add(GROUPS)
    online.step()
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="device-side"):
        patch.setattr(online._decoder, "advance", raises("device-side assert"))
        online.step()

    assert online.is_finished
    assert online.score(GROUPS).scores == scorer(model, heads).score(GROUPS).scores


def raises(message: str):
    def fail(*_):
        raise RuntimeError(message)

    return fail


def test_a_trace_touches_no_group_in_flight(model, heads):
    online = scorer(model, heads)
    numbers = online.add(GROUPS)
    online.step()

    online.trace(GROUPS)

    scored = {}
    while not online.is_finished:
        scored |= {group.number: group.scores for group in online.step()}
    # the groups that the first step finished are not in it
    expected = dict(zip(numbers, scorer(model, heads).score(GROUPS).scores, strict=True))
    assert scored
    assert all(pairs == expected[number] for number, pairs in scored.items())
