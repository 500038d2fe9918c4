"""The chosen policy is the cheapest that passed, its figures are those of the users that certify, and no seed leaks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from optirag_core.config.exits import CalibrationSettings
from optirag_core.engine.certificate import NORMAL, OVERLOAD, Calibration
from optirag_core.engine.policy import ExitPolicy
from optirag_core.errors import ConfigError, DataError
from optirag_core.training.exit_policy import calibrate as calibrate_all
from optirag_core.training.exit_policy import evidence_alone
from optirag_core.training.policy_grid import policy_grid
from tests.training.traces import LAYERS, imagined_trace

FEW = CalibrationSettings(
    epsilon=0.01, thresholds=(0.02, 0.1, 0.3), group_stops=(None, 2), evidence_shares=(0.0, 0.5, 1.0)
)


def calibrate(*data, seed: int) -> Calibration:
    """Of the policy that scores."""
    return calibrate_all(*data, seed=seed)[NORMAL]


@pytest.fixture(scope="module")
def found() -> Calibration:
    trace, labels, users = imagined_trace(2000, pairs=2, noise=0.3, evidence_noise=1.0)
    return calibrate({None: trace}, labels, users, FEW, seed=0)


def test_the_last_that_passed_before_a_failure_is_chosen(found):
    tested = sorted((each for each in found.candidates if each.p_value is not None), key=lambda each: -each.flops_share)
    passed = [each for each in tested if each.accepted]
    assert tested[: len(passed)] == passed  # no gap
    assert all(each.p_value <= found.delta for each in passed)
    assert tested[len(passed)].p_value > found.delta
    assert found.certified == passed[-1]
    assert found.certified.flops_share < 1
    assert found.upper_bound <= found.epsilon


def test_full_depth_comes_first_and_needs_no_test(found):
    first = found.candidates[0]
    assert (first.policy.criterion, first.layers, first.accepted, first.p_value) == ("none", (), True, None)
    assert (first.flops_share, first.excess_loss, first.auc_difference, first.mean_exit_layer) == (1, 0, 0, 8)


def test_figures_are_of_the_users_that_certify(found):
    trace, labels, users = imagined_trace(2000, pairs=2, noise=0.3, evidence_noise=1.0)
    places = np.random.default_rng(0).permutation(2000)[np.unique(users, return_inverse=True)[1]]
    half = places >= 600
    chosen = found.certified
    outcome = trace.outcome(chosen.policy, chosen.layers)

    def losses(logits: torch.Tensor) -> np.ndarray:
        p = torch.softmax(logits.double(), dim=-1).numpy()
        return -np.log(np.where(labels == 1, p[:, 0], p[:, 1]))

    excess = (losses(outcome.logits) - losses(trace.final_logits))[half]
    assert found.num_users == 1400
    assert found.num_pairs == half.sum() == 2800
    assert chosen.excess_loss == pytest.approx(excess.mean())  # as many pairs for each user, and none is clipped
    assert chosen.mean_exit_layer == pytest.approx(outcome.exit_layers[torch.from_numpy(half)].double().mean())


def test_a_user_counts_once_whatever_its_pairs():
    # Users with one pair and with three.
    trace, labels, _ = imagined_trace(8, noise=2.0)
    users = ["a", "b", "b", "b", "c", "d", "d", "d"]
    trace = replace(trace, sizes=(1, 3, 1, 3))
    found = calibrate({None: trace}, labels, users, FEW, seed=1)
    places = np.random.default_rng(1).permutation(4)
    certifying = [name for name, place in zip("abcd", places, strict=True) if place >= 2]
    shallow = next(each for each in found.candidates if each.policy.threshold == 0.7 and each.layers == LAYERS)
    outcome = trace.outcome(shallow.policy, shallow.layers)

    def loss(pair: int, logits: torch.Tensor) -> float:
        sign = 1 if labels[pair] else -1
        return math.log1p(math.exp(-sign * (logits[pair, 0] - logits[pair, 1]).item()))

    excess = [loss(pair, outcome.logits) - loss(pair, trace.final_logits) for pair in range(8)]
    means = [np.mean([excess[pair] for pair in range(8) if users[pair] == name]) for name in certifying]
    assert shallow.excess_loss == pytest.approx(np.mean(np.clip(means, -1, 1)), abs=1e-6)


def test_heads_as_good_as_full_depth_let_everyone_stop_at_the_first():
    trace, labels, users = imagined_trace(1000, noise=0.0)
    found = calibrate({None: trace}, labels, users, FEW, seed=0)
    assert found.certified.mean_exit_layer == LAYERS[0]
    assert found.flops_ratio == pytest.approx(1 / found.certified.flops_share)
    assert "at most 0.01 nats" in found.statement


def test_evidence_that_knows_all_asks_no_llm():
    trace, labels, users = imagined_trace(1000, noise=0.5, evidence_noise=0.0)
    found = calibrate({None: trace}, labels, users, FEW, seed=0)
    assert found.certified.policy == ExitPolicy("none", 2, 0.0, evidence_confidence=0.5)
    assert (found.certified.mean_exit_layer, found.certified.flops_share, found.flops_ratio) == (0, 0, None)


@pytest.mark.parametrize(("num_users", "noise"), [(40, 0.0), (1000, 30.0)])
def test_full_depth_stays_where_nothing_passes(num_users, noise):
    """Too few users, or heads that are wrong wherever they are sure."""
    trace, labels, users = imagined_trace(num_users, noise=noise)
    settings = FEW.model_copy(update={"criteria": ("confidence", "probability")})
    found = calibrate({None: trace}, labels, users, settings, seed=0)
    assert found.chosen == 0
    assert (found.upper_bound, found.flops_ratio) == (0, 1)
    assert "full depth" in found.statement


def test_chosen_policies_break_the_bound_at_most_delta_of_the_time():
    """The whole way, on the truth: excess loss expected under the true p(liked), of 50,000 other pairs."""
    settings = CalibrationSettings(epsilon=0.02, delta=0.2, thresholds=(0.05, 0.2), criteria=("confidence",))
    other, labels, _ = imagined_trace(50_000, noise=0.9, seed=10_000)
    truth = torch.sigmoid((other.final_logits[:, 0] - other.final_logits[:, 1]).double())

    def expected(logits: torch.Tensor) -> torch.Tensor:
        score = (logits[:, 0] - logits[:, 1]).double()
        return torch.nn.functional.binary_cross_entropy_with_logits(score, truth)

    broken, cheaper, num_draws = 0, 0, 100
    for seed in range(num_draws):
        trace, labels, users = imagined_trace(400, noise=0.9, seed=seed)
        chosen = calibrate({None: trace}, labels, users, settings, seed=seed).certified
        excess = expected(other.outcome(chosen.policy, chosen.layers).logits) - expected(other.final_logits)
        broken += (excess > settings.epsilon).item()
        cheaper += chosen.flops_share < 1
    assert broken / num_draws <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / num_draws)
    assert cheaper > num_draws / 2  # or nothing was tested here


def test_a_looser_bound_certifies_a_cheaper_policy_on_the_same_users(found):
    data = imagined_trace(2000, pairs=2, noise=0.3, evidence_noise=1.0)
    loose = FEW.model_copy(update={"overload_epsilon": 0.2})

    both = calibrate_all({None: data[0]}, *data[1:], loose, seed=0)

    assert both[NORMAL] == found
    assert both[OVERLOAD] == calibrate({None: data[0]}, *data[1:], FEW.model_copy(update={"epsilon": 0.2}), seed=0)
    assert both[OVERLOAD].certified.flops_share < found.certified.flops_share
    assert found.upper_bound < both[OVERLOAD].upper_bound <= 0.2
    passed = [{each.policy for each in each_of.candidates if each.accepted} for each_of in both.values()]
    assert passed[0] < passed[1]


@pytest.mark.parametrize(("num_users", "evidence_noise"), [(1000, 0.0), (40, None), (1, None)])
def test_no_overload_policy_where_nothing_is_cheaper(num_users, evidence_noise):
    """The evidence knows all and no layer runs; too few users for either bound; none to certify with."""
    trace, labels, users = imagined_trace(num_users, noise=0.5, evidence_noise=evidence_noise)
    loose = FEW.model_copy(update={"overload_epsilon": 0.011})
    assert list(calibrate_all({None: trace}, labels, users, loose, seed=0)) == [NORMAL]


def test_one_seed_one_choice():
    trace, labels, users = imagined_trace(300, noise=0.3)
    first, again, other = (calibrate({None: trace}, labels, users, FEW, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.candidates != other.candidates


def test_the_digest_tells_data_apart():
    trace, labels, users = imagined_trace(50, noise=0.3)
    data = [
        calibrate({None: changed}, answers, users, FEW, seed=0).data
        for changed, answers in (
            (trace, labels),
            (trace, 1 - labels),
            (replace(trace, final_logits=trace.final_logits + 1), labels),
        )
    ]
    assert len(set(data)) == 3


def test_frozen_prefixes_compete_with_full_depth_of_the_plain_trace():
    trace, labels, users = imagined_trace(600, noise=0.3)
    frozen = replace(trace, frozen_prefix_after=2)
    found = calibrate({None: trace, 2: frozen}, labels, users, FEW, seed=0)
    [deep] = [each for each in found.candidates[1:] if each.policy.criterion == "none"]
    assert deep.policy.frozen_prefix_after == 2
    assert deep.excess_loss == 0  # the same logits, and fewer FLOPs
    assert deep.flops_share < 1
    assert found.certified.policy.frozen_prefix_after == 2


def test_the_grid_holds_every_combination_once():
    trace, _, _ = imagined_trace(20, pairs=3, evidence_noise=1.0)
    settings = FEW.model_copy(update={"criteria": ("ratio", "confidence", "entropy", "patience")})
    grid = policy_grid(settings, {None: trace})
    # rules: ratio 2 windows x 3 thresholds, confidence 3, entropy 3, patience 2 windows; x 2 group stops x 3 suffixes;
    # at shares 0 and 0.5, and evidence with full depth at shares 0.5 and 1
    assert len(grid) == len(set(grid)) == (6 + 3 + 3 + 2) * 2 * 3 * 2 + 2
    assert {policy.threshold for policy, _ in grid if policy.criterion == "confidence"} == {0.98, 0.9, 0.7}
    assert {layers for _, layers in grid} == {(), (7,), (5, 7), (3, 5, 7)}


def test_single_candidates_have_no_group_to_stop():
    trace, _, _ = imagined_trace(20)
    assert {policy.group_stop for policy, _ in policy_grid(FEW, {None: trace})} == {None}


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_evidence_confidence_stops_the_share_asked_for(share):
    trace, _, _ = imagined_trace(1000, evidence_noise=1.0)
    settings = FEW.model_copy(update={"evidence_shares": (share,)})
    policy, layers = policy_grid(settings, {None: trace})[0]
    assert trace.outcome(policy, layers).exit_layers.eq(0).double().mean() == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize("num_users", [0, 1])
def test_nobody_to_learn_from_or_to_certify_with_is_full_depth(num_users):
    trace, labels, users = imagined_trace(10, pairs=2)
    few = trace.of_pairs(torch.from_numpy(np.arange(20) < 2 * num_users))

    found = calibrate({None: few}, labels[: 2 * num_users], users[: 2 * num_users], FEW, seed=0)

    assert (found.chosen, found.num_users, found.certified.policy.criterion) == (0, 0, "none")
    assert Calibration.from_json(found.to_json()) == found


def test_the_evidence_alone_needs_no_users_where_full_depth_says_the_same():
    trace, labels, users = imagined_trace(3, evidence_noise=0.0)

    found = evidence_alone({None: trace}, labels, users, FEW)

    assert found.certified.policy == ExitPolicy("none", 2, 0.0, evidence_confidence=0.5)
    assert (found.num_users, found.upper_bound, found.flops_ratio) == (0, 0, None)
    outcome = trace.outcome(found.certified.policy, found.certified.layers)
    assert torch.equal(outcome.logits, trace.final_logits) and not outcome.exit_layers.any()
    assert Calibration.from_json(found.to_json()) == found


def test_what_does_not_fit_is_refused():
    trace, labels, users = imagined_trace(10, pairs=2)
    with pytest.raises(DataError, match="expected one of each per pair"):
        calibrate({None: trace}, labels[:-1], users, FEW, seed=0)
    with pytest.raises(DataError, match="pairs of several users"):
        calibrate({None: trace}, labels, [str(pair) for pair in range(20)], FEW, seed=0)
    with pytest.raises(ConfigError, match="trace without one as well"):
        calibrate({2: replace(trace, frozen_prefix_after=2)}, labels, users, FEW, seed=0)
