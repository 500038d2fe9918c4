"""Who stops at one exit layer, on logits written down."""

import pytest
import torch
from torch import Tensor

from optirag_core.engine.policy import ExitPolicy, exits_at


def window(*probabilities: float) -> Tensor:
    """[m+1, 2] logits of a head that gives these p(yes)."""
    yes = torch.tensor(probabilities).logit()
    return torch.stack([yes, torch.zeros_like(yes)], dim=-1)


STEADY = window(0.5, 0.5, 0.5)  # deltas 0, 0
MOVING = window(0.5, 0.6, 0.8)  # deltas 0.1, 0.2: discrepancy 0.1
LOGITS = torch.stack([STEADY, MOVING, MOVING, STEADY, MOVING])
USER_GROUPS = torch.tensor([4, 4, 4, 7, 7])


@pytest.mark.parametrize(
    ("threshold", "stops"),
    [(0.01, [True, False, False, True, False]), (0.11, [True] * 5), (0.0, [False] * 5)],
)
def test_without_group_stop_pairs_stop_alone(threshold, stops):
    stopped, forced = exits_at(LOGITS, USER_GROUPS, ExitPolicy("probability", 2, threshold))

    assert stopped.tolist() == stops
    assert not forced.any()


@pytest.mark.parametrize(
    ("k_min", "forced"),
    [(1, [False] * 5), (2, [False, False, False, False, True]), (3, [False, True, True, False, True])],
)
def test_a_group_with_fewer_than_k_min_left_stops(k_min, forced):
    stopped, was_forced = exits_at(LOGITS, USER_GROUPS, ExitPolicy("probability", 2, 0.01, group_stop=k_min))

    assert was_forced.tolist() == forced
    assert stopped.tolist() == [alone or with_group for alone, with_group in zip([1, 0, 0, 1, 0], forced, strict=True)]


def test_without_a_criterion_nobody_stops():
    stopped, forced = exits_at(LOGITS, USER_GROUPS, ExitPolicy("none", 2, 1e9, group_stop=9))

    assert not stopped.any()
    assert not forced.any()


@pytest.mark.parametrize(
    ("confidence", "k_min", "stops", "forced"),
    [
        # max(p, 1 - p) is 0.75, 0.75, 0.5, 0.875, 0.5
        (0.75, None, [True, True, False, True, False], [False] * 5),
        (0.8, None, [False, False, False, True, False], [False] * 5),
        (0.75, 2, [True] * 5, [False, False, True, False, True]),
        (0.8, 2, [False, False, False, True, True], [False, False, False, False, True]),
    ],
)
def test_at_depth_0_pairs_stop_by_confidence_whatever_the_criterion(confidence, k_min, stops, forced):
    logits = torch.stack([window(p) for p in (0.75, 0.25, 0.5, 0.875, 0.5)])  # [5, 1, 2]
    policy = ExitPolicy("none", 3, 0.0, evidence_confidence=confidence, group_stop=k_min).at_depth_0

    stopped, was_forced = exits_at(logits, USER_GROUPS, policy)

    assert stopped.tolist() == stops
    assert was_forced.tolist() == forced
