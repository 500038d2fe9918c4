"""The bound holds as often as it says, whatever the losses look like; the arithmetic by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.errors import DataError
from optirag_core.training.learn_then_test import (
    LOWEST_BOUND,
    MAX_BET,
    PRIOR_VARIANCE,
    fixed_sequence,
    p_value,
    pareto_order,
    upper_bound,
    users_needed,
)

DELTA = 0.1
NUM_DRAWS = 1000
AT_MOST = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / NUM_DRAWS)  # three binomial standard deviations


def test_p_value_by_hand():
    # ln(1/0.1) = 2.302585, n = 3. Bets: sqrt(2 * 2.302585 / (3 * 0.01)) = 12.4 -> 0.9; the mean of one loss leaves no
    # deviation, so the second is 0.9 too. Losses 0.0, 0.4: means 0.0, 0.2, deviation (0.4 - 0.2)^2 = 0.04, variance
    # (0.01 + 0.04) / 3 = 0.016667, third bet sqrt(4.605170 / (3 * 0.016667)) = 9.6 -> 0.9.
    # Wealth at epsilon 0.1: 1.09, 1.09 * (1 - 0.27) = 0.7957, 0.7957 * (1 + 0.9 * 1.1) = 1.583443.
    assert p_value(np.array([0.0, 0.4, -1.0]), 0.1, DELTA) == pytest.approx(1 / 1.583443, abs=1e-6)


def test_the_best_moment_counts():
    # 1.09, then 1.09 * (1 - 0.81) = 0.2071: the wealth was 1.09 once.
    assert p_value(np.array([0.0, 1.0]), 0.1, DELTA) == pytest.approx(1 / 1.09)


def test_nothing_won_is_no_evidence():
    assert p_value(np.full(50, 0.3), 0.1, DELTA) == 1.0


@given(
    losses=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    epsilon=st.floats(0.001, 0.5),
    delta=st.floats(0.01, 0.5),
)
def test_p_value_equals_the_gamble_played_user_by_user(losses, epsilon, delta):
    wealth = best = 1.0
    deviations = total = 0.0
    for number, loss in enumerate(losses, start=1):
        variance = (PRIOR_VARIANCE + deviations) / number
        bet = min(MAX_BET, math.sqrt(2 * math.log(1 / delta) / (len(losses) * variance)))
        wealth *= 1 + bet * (epsilon - loss)
        best = max(best, wealth)
        total += loss
        deviations += (loss - total / number) ** 2
    assert p_value(np.array(losses), epsilon, delta) == pytest.approx(1 / best, rel=1e-9)


HARMFUL = {
    "as much as allowed": lambda rng, n, epsilon: rng.normal(epsilon, 0.03, n),
    "rare and large": lambda rng, n, epsilon: np.where(rng.random(n) < epsilon, 1.0, 0.0),
    "rare behind a gain": lambda rng, n, epsilon: np.where(rng.random(n) < 0.05, 1.0, (epsilon - 0.05) / 0.95),
    "skewed": lambda rng, n, epsilon: np.clip(rng.exponential(0.05, n), 0, 1) - 0.05 + epsilon,
    "above": lambda rng, n, epsilon: rng.normal(1.2 * epsilon, 0.05, n),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize(("num_users", "epsilon"), [(300, 0.02), (2000, 0.005)])
def test_harmful_candidates_pass_at_most_delta_of_the_time(name, num_users, epsilon):
    rng = np.random.default_rng(3)
    passed = sum(p_value(HARMFUL[name](rng, num_users, epsilon), epsilon, DELTA) <= DELTA for _ in range(NUM_DRAWS))
    assert passed / NUM_DRAWS <= AT_MOST


def test_harmless_candidates_pass():
    rng = np.random.default_rng(4)
    passed = sum(p_value(rng.normal(0.0, 0.03, 2000), 0.005, DELTA) <= DELTA for _ in range(200))
    assert passed / 200 > 0.95


def test_sequences_of_harmful_candidates_break_the_bound_at_most_delta_of_the_time():
    # 20 candidates of growing risk on the same users; from the 10th on it is above epsilon.
    rng, epsilon = np.random.default_rng(5), 0.01
    risks = np.linspace(0.001, 0.02, 20)
    broken = 0
    for _ in range(NUM_DRAWS):
        shared = rng.normal(0.0, 0.04, (1, 800))
        losses = risks[:, None] + shared + rng.normal(0.0, 0.01, (20, 800))
        accepted = fixed_sequence([p_value(each, epsilon, DELTA) for each in losses], DELTA)
        broken += (risks[:accepted] > epsilon).any()
    assert broken / NUM_DRAWS <= AT_MOST


@pytest.mark.parametrize(
    ("p_values", "accepted"), [([], 0), ([0.2, 0.0], 0), ([0.1, 0.05, 0.11, 0.0], 2), ([0.0, 0.0], 2)]
)
def test_fixed_sequence_ends_at_the_first_failure(p_values, accepted):
    assert fixed_sequence(p_values, DELTA) == accepted


def test_pareto_order_by_hand():
    costs = np.array([1.0, 0.5, 0.5, 0.8, 0.2, 0.2])
    risks = np.array([0.0, 0.2, 0.1, 0.3, 0.9, 0.9])
    # 3 is beaten by 2 in both, 1 by 2 in risk at equal cost, 5 equals 4.
    assert pareto_order(costs, risks).tolist() == [0, 2, 4]


@given(points=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_pareto_order_is_who_nobody_beats(points):
    costs, risks = np.array(points, dtype=float).T
    order = pareto_order(costs, risks)
    unbeaten = {
        (cost, risk)
        for cost, risk in points
        if not any((c, r) != (cost, risk) and c <= cost and r <= risk for c, r in points)
    }
    assert [(costs[i], risks[i]) for i in order] == sorted(unbeaten, key=lambda point: point[1])


def test_the_bound_is_where_the_test_turns():
    losses = np.random.default_rng(6).normal(0.001, 0.04, 1500)
    bound = upper_bound(losses, DELTA)
    assert p_value(losses, bound, DELTA) <= DELTA < p_value(losses, bound - 1e-5, DELTA)


def test_the_bound_is_above_the_mean_in_at_least_1_minus_delta_of_draws():
    rng = np.random.default_rng(7)
    below = sum(upper_bound(np.where(rng.random(400) < 0.02, 1.0, 0.0), DELTA) < 0.02 for _ in range(300))
    assert below / 300 <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 300)


def test_the_bound_of_gains_ends_at_the_lowest():
    assert upper_bound(np.full(5000, -0.5), DELTA) == pytest.approx(LOWEST_BOUND, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.002, 0.02])
def test_users_needed_is_where_losses_of_zero_begin_to_certify(epsilon):
    needed = users_needed(epsilon, DELTA)
    assert p_value(np.zeros(needed - 1), epsilon, DELTA) > DELTA
    assert p_value(np.zeros(needed + 3), epsilon, DELTA) <= DELTA  # the first bets are below the largest


@pytest.mark.parametrize("losses", [[], [0.0, 1.1], [0.0, float("nan")]])
def test_losses_that_the_bound_does_not_cover_are_refused(losses):
    with pytest.raises(DataError, match=r"expected at least one, and all in \[-1, 1\]"):
        p_value(np.array(losses), 0.01, DELTA)
