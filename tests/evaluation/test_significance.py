"""Holm's correction and paired tests by hand; the null is rejected as often as it says, a real difference is found."""

from statistics import stdev

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import bootstrap_auc_difference, bootstrap_mean_difference, p_value
from optirag_core.evaluation.metrics import answer_losses
from optirag_core.evaluation.significance import compare_all, holm, seeded_metrics

NUM_USERS, PAIRS_PER_USER = 60, 4
USERS = np.repeat(np.arange(NUM_USERS), PAIRS_PER_USER)


def sample(rng, *noises):
    """Labels, and p(yes) of predictors that see the same truth through noise of these sizes, each its own."""
    logits = rng.normal(size=NUM_USERS)[USERS] + rng.normal(size=len(USERS))  # pairs of a user go together
    labels = (rng.random(len(USERS)) < sigmoid(logits)).astype(int)
    return labels, [sigmoid(logits + noise * rng.normal(size=len(USERS))) for noise in noises]


def sigmoid(logits):
    return 1.0 / (1.0 + np.exp(-logits))


def test_holm_by_hand():
    """.005 x 4, .01 x 3, .03 x 2, and .04 x 1 is no less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_value_by_hand():
    """One of 9 draws is on the other side: 2 (1 + 1) / (9 + 1)."""
    draws = np.array([0.3, 0.1, -0.1, 0.2, 0.4, 0.5, 0.1, 0.2, 0.6])
    assert p_value(draws) == p_value(-draws) == pytest.approx(0.4)
    assert p_value(np.ones(999)) == pytest.approx(0.002)
    assert p_value(np.zeros(9)) == 1.0  # all draws are on both sides


def test_user_a_decides_by_hand():
    """One user in doubt: the AUC differs by 0.25, by 1 with a alone and by 0 with b alone."""
    labels, users = [0, 1, 0, 1], ["a", "a", "b", "b"]
    scores = {"new": [0.1, 0.4, 0.6, 0.8], "old": [0.4, 0.1, 0.6, 0.8]}
    found = compare_all(labels, users, scores, reference="old", seed=0)
    assert list(found) == ["new"]
    auc = found["new"].auc
    assert (auc.difference, auc.interval) == (0.25, (0.0, 1.0))
    assert 0.4 < auc.p < 0.6  # both draws are b in a quarter of the cases: twice that
    assert auc.is_noise
    gap = np.mean([np.log(0.6 / 0.9), np.log(0.1 / 0.4), 0.0, 0.0])
    assert found["new"].log_loss.difference == pytest.approx(gap)


def test_one_seed_is_the_paired_bootstrap_of_old():
    labels, [one, two, three] = sample(np.random.default_rng(1), 0.3, 0.6, 3.0)
    scores = {"one": one, "two": two, "three": three}
    found = compare_all(labels, USERS, scores, reference="two", seed=5)
    assert list(found) == ["one", "three"]
    for name, tests in found.items():
        difference = bootstrap_auc_difference(labels, scores[name], two, seed=5, groups=USERS)
        assert (tests.auc.difference, *tests.auc.interval) == pytest.approx(difference)
        losses = answer_losses(labels, scores[name]), answer_losses(labels, two)
        difference = bootstrap_mean_difference(*losses, seed=5, groups=USERS)
        assert (tests.log_loss.difference, *tests.log_loss.interval) == pytest.approx(difference)
    tests = [test for tests in found.values() for test in (tests.auc, tests.log_loss)]
    assert holm([test.p for test in tests]) == pytest.approx([test.p_holm for test in tests])


def test_predictors_of_equal_quality_differ_in_one_of_twenty_data_sets():
    """10 of 200 are expected; fewer than 3 or more than 19 come by chance once in 200 such tests."""
    rng = np.random.default_rng(2)
    ps = []
    for number in range(200):
        labels, [one, two] = sample(rng, 0.8, 0.8)
        found = compare_all(labels, USERS, {"a": one, "b": two}, reference="b", seed=number, num_resamples=80)["a"]
        ps.append((found.auc.p, found.log_loss.p))
    for of_measure in np.transpose(ps):
        assert 3 <= np.sum(of_measure <= 0.05) <= 19
        assert 0.4 < np.mean(of_measure) < 0.6


def test_a_difference_is_found_whatever_else_the_table_holds():
    """Also where the least p, 2 / (B + 1), times all comparisons would be noise with 1,000 resamples."""
    rng = np.random.default_rng(3)
    labels, [good, *bad] = sample(rng, 0.1, *[6.0] * 14)
    scores = {"good": good, **{f"bad {number}": each for number, each in enumerate(bad)}, "equal": good}
    found = compare_all(labels, USERS, scores, reference="good", seed=0)
    assert not any(each.auc.is_noise or each.log_loss.is_noise for name, each in found.items() if name != "equal")
    assert found["bad 0"].auc.difference < 0.0 < found["bad 0"].log_loss.difference
    assert found["equal"].auc.difference == 0.0
    assert found["equal"].auc.p == found["equal"].log_loss.p == found["equal"].auc.p_holm == 1.0


def test_seeds_are_averaged_and_told():
    labels, seeds = sample(np.random.default_rng(4), 0.5, 1.0, 2.0, 1.0)
    *ours, theirs = seeds
    aucs = [roc_auc_score(labels, row) for row in seeds]
    gaps = [auc - aucs[-1] for auc in aucs[:-1]]
    test = compare_all(labels, USERS, {"new": ours, "old": theirs}, reference="old", seed=0)["new"].auc
    assert test.seeds.by_seed == pytest.approx(gaps)
    assert test.difference == test.seeds.mean == pytest.approx(np.mean(gaps))
    assert test.seeds.deviation == pytest.approx(stdev(gaps))
    assert test.interval[0] < test.difference < test.interval[1]
    both = compare_all(labels, USERS, {"new": ours, "old": seeds[1:]}, reference="old", seed=0)["new"].auc
    assert both.seeds.by_seed == pytest.approx([aucs[0] - aucs[1], aucs[1] - aucs[2], aucs[2] - aucs[3]])
    metrics = seeded_metrics(labels, ours)
    assert metrics.auc.mean == pytest.approx(np.mean(aucs[:-1]))
    assert metrics.log_loss.by_seed[0] == pytest.approx(answer_losses(labels, ours[0]).mean())
    assert seeded_metrics(labels, theirs).auc.deviation is None


def test_the_mean_of_seeds_is_no_ensemble():
    """Two seeds that are right about one half each: 0.875 in the mean, and 1 if their scores were averaged."""
    labels = [0, 1, 0, 1]
    seeds = [[0.1, 0.9, 0.4, 0.4], [0.4, 0.4, 0.1, 0.9]]
    found = compare_all(labels, [0, 1, 2, 3], {"two seeds": seeds, "coin": [0.5] * 4}, reference="coin", seed=0)
    assert found["two seeds"].auc.difference == pytest.approx(0.875 - 0.5)
    assert roc_auc_score(labels, np.mean(seeds, axis=0)) == 1.0


def test_one_class_has_losses_alone():
    found = compare_all([1, 1], ["a", "b"], {"a": [0.5, 0.6], "b": [0.4, 0.4]}, reference="b", seed=0)["a"]
    assert found.auc is None
    assert found.log_loss.difference < 0.0
    assert seeded_metrics([1, 1], [0.5, 0.6]).auc is None


@pytest.mark.parametrize(
    ("scores", "reference", "users", "message"),
    [
        ({"a": [0.1, 0.2]}, "b", [0, 1], "reference 'b' is not among the predictors: a"),
        ({"a": [[0.1, 0.2]] * 2, "b": [[0.1, 0.2]] * 3}, "b", [0, 1], "'a' has scores of 2 seeds, the reference 'b'"),
        ({"a": [0.1, 1.2], "b": [0.1, 0.2]}, "b", [0, 1], "row 1: score is 1.2"),
        ({"a": [0.1, 0.2], "b": [0.1, 0.2]}, "b", [0], "1 groups for 2 pairs"),
        ({"a": [0.1], "b": [0.1, 0.2]}, "b", [0, 1], "one length"),
    ],
)
def test_bad_input_is_named(scores, reference, users, message):
    with pytest.raises(DataError, match=message):
        compare_all([0, 1], users, scores, reference=reference, seed=0)
