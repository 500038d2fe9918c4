"""`group_stop` over a user group that comes in slices, on verdicts written down."""

import pytest

from optirag_core.engine.groups import PairScore
from optirag_core.engine.inflight import GroupsInFlight, Verdict
from optirag_core.engine.layout import Pair, PromptPart

LAYER = 5


def part(user_group: int, *candidates: int) -> PromptPart:
    return PromptPart(user_group, prefix=[1], suffixes=[[2]] * len(candidates), candidates=candidates)


def sliced(k_min: int | None) -> GroupsInFlight:
    """One user group of five candidates in two slices."""
    groups = GroupsInFlight(k_min)
    groups.open(7, [part(7, 0, 1, 2), part(7, 3, 4)])
    return groups


def passes(groups: GroupsInFlight, stable: dict[int, bool], *, layer: int = LAYER) -> Verdict:
    """A row of candidates of the user group passes a head that gives 0.1 times the candidate."""
    pairs = [Pair(7, candidate) for candidate in stable]
    verdicts = groups.verdicts(pairs, list(stable.values()))
    groups.record(pairs, [candidate / 10 for candidate in stable], layer, list(stable.values()), verdicts)
    return verdicts[7]


def test_two_of_five_are_fewer_than_three_and_stop_with_the_head_that_they_passed():
    groups = sliced(k_min=3)

    assert passes(groups, {0: True, 1: False, 2: True}) is Verdict.WAIT
    assert groups.pop_scored() == {}
    assert passes(groups, {3: False, 4: True}) is Verdict.STOP

    assert groups.pop_scored()[7].scores == {
        0: PairScore(0.0, 5),
        1: PairScore(0.1, 5, forced=True),
        2: PairScore(0.2, 5),
        3: PairScore(0.3, 5, forced=True),
        4: PairScore(0.4, 5),
    }
    assert len(groups) == 0


def test_two_of_five_are_not_fewer_than_two_and_go_on_to_the_next_head():
    groups = sliced(k_min=2)

    assert passes(groups, {0: True, 1: False, 2: True}) is Verdict.WAIT
    assert passes(groups, {3: False, 4: True}) is Verdict.GO_ON
    assert passes(groups, {3: True}, layer=6) is Verdict.WAIT
    assert passes(groups, {1: False}, layer=6) is Verdict.STOP

    scores = groups.pop_scored()[7].scores
    assert (scores[1], scores[3]) == (PairScore(0.1, 6, forced=True), PairScore(0.3, 6))


def test_a_slice_that_has_nobody_left_is_not_waited_for():
    groups = sliced(k_min=1)

    assert passes(groups, {0: True, 1: True, 2: True}) is Verdict.WAIT
    assert passes(groups, {3: False, 4: False}) is Verdict.GO_ON
    assert passes(groups, {3: False, 4: False}, layer=6) is Verdict.GO_ON


@pytest.mark.parametrize("stable", [True, False])
def test_a_group_in_one_row_never_waits(stable):
    groups = sliced(k_min=2)

    assert passes(groups, dict.fromkeys(range(5), stable)) is (Verdict.STOP if stable else Verdict.GO_ON)


def test_without_group_stop_nobody_waits():
    groups = sliced(k_min=None)

    assert passes(groups, {0: False, 1: True}) is Verdict.GO_ON
    assert passes(groups, {0: True}, layer=6) is Verdict.GO_ON


def test_verdicts_alone_change_nothing():
    groups = sliced(k_min=3)
    pairs, stable = [Pair(7, candidate) for candidate in range(5)], [True] * 4 + [False]

    assert groups.verdicts(pairs, stable) == groups.verdicts(pairs, stable) == {7: Verdict.STOP}
    assert groups.pop_scored() == {}


def test_a_group_without_candidates_is_scored_at_once():
    groups = GroupsInFlight(None)
    groups.open(3, [])

    assert groups.pop_scored()[3].scores == {}
