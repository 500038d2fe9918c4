import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.engine.criterion import discrepancy, should_exit, statistic, window_values

ALL = ["ratio", "probability", "confidence", "entropy", "patience"]


def logits_of(criterion, values, offset=0.0):
    """[1, m+1, 2] logits whose tracked values are `values`; both logits are shifted by `offset`."""
    values = torch.tensor([values], dtype=torch.float64)
    difference = values.log() if criterion == "ratio" else values.logit()
    return torch.stack([difference + offset, torch.full_like(difference, offset)], dim=-1)


def decide(criterion, values, threshold):
    tracked = window_values(logits_of(criterion, values, offset=3.0), criterion)
    return discrepancy(tracked).item(), should_exit(tracked, threshold, criterion).tolist()


@pytest.mark.parametrize(
    ("values", "difference", "exits"),
    [
        # deltas 0.100, 0.100, 0.105: mean of the first two 0.100, |0.105 - 0.100| = 0.005 < 0.01
        ((2.0, 2.1, 2.2, 2.305), 0.005, True),
        # deltas 0.10, 0.10, 0.15: |0.15 - 0.10| = 0.05 >= 0.01
        ((2.0, 2.1, 2.2, 2.35), 0.05, False),
        # deltas 0.3, 0.1, 0.2, falling and rising: mean 0.2, |0.2 - 0.2| = 0 < 0.01
        ((1.0, 0.7, 0.8, 0.6), 0.0, True),
        # deltas 0.4, 0.2, 0.0: mean 0.3, |0.0 - 0.3| = 0.3, though the last step stands still
        ((1.0, 1.4, 1.6, 1.6), 0.3, False),
    ],
)
def test_ratio_by_hand(values, difference, exits):
    assert decide("ratio", values, threshold=0.01) == (pytest.approx(difference, abs=1e-9), [exits])


@pytest.mark.parametrize(
    ("values", "difference", "exits"),
    [
        # deltas 0.020, 0.020, 0.025: mean of the first two 0.020, |0.025 - 0.020| = 0.005 < 0.01
        ((0.60, 0.62, 0.64, 0.665), 0.005, True),
        # deltas 0.02, 0.02, 0.06: |0.06 - 0.02| = 0.04 >= 0.01
        ((0.60, 0.62, 0.64, 0.70), 0.04, False),
    ],
)
def test_probability_by_hand(values, difference, exits):
    assert decide("probability", values, threshold=0.01) == (pytest.approx(difference, abs=1e-9), [exits])


def test_ratio_and_probability_disagree_on_a_confident_pair():
    """p 0.95, 0.96, 0.97, 0.98: deltas all 0.01, difference 0. Ratios 19, 24, 32.33, 49: deltas 5, 8.33, 16.67."""
    logits = logits_of("probability", (0.95, 0.96, 0.97, 0.98))
    assert discrepancy(window_values(logits, "probability")).item() == pytest.approx(0.0, abs=1e-9)
    assert discrepancy(window_values(logits, "ratio")).item() == pytest.approx(10.0, abs=1e-9)  # 16.67 - 6.67


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        # m = 2: deltas 0.2, 0.3: |0.3 - 0.2|
        ((1.0, 1.2, 1.5), 0.1),
        # m = 5: deltas 0.1, 0.2, 0.3, 0.4, 0.05: mean of the first four 0.25, |0.05 - 0.25|
        ((1.0, 1.1, 1.3, 1.6, 2.0, 2.05), 0.2),
    ],
)
def test_windows_of_two_and_five(values, difference):
    for margin, exits in ((1e-6, [True]), (-1e-6, [False])):
        assert decide("ratio", values, difference + margin) == (pytest.approx(difference, abs=1e-9), exits)


def test_the_threshold_itself_is_no_exit():
    values = torch.tensor([[0.0, 1.0, 2.0, 4.0]])  # deltas 1, 1, 2: exactly 1
    assert should_exit(values, 1.0, "ratio").tolist() == [False]
    assert should_exit(values, 1.0 + 1e-6, "ratio").tolist() == [True]
    assert should_exit(torch.ones(1, 4), 0.0, "ratio").tolist() == [False]


def test_none_never_exits():
    assert should_exit(torch.ones(2, 4), 1e9, "none").tolist() == [False, False]


@pytest.mark.parametrize(
    ("criterion", "values", "found", "threshold", "stricter"),
    [
        # only the last state counts: max(0.9, 0.1)
        ("confidence", (0.2, 0.5, 0.4, 0.9), 0.9, 0.9 - 1e-9, 0.9 + 1e-9),
        # as sure of the other answer: max(0.05, 0.95)
        ("confidence", (0.9, 0.9, 0.9, 0.05), 0.95, 0.95 - 1e-9, 0.95 + 1e-9),
        ("confidence", (0.9, 0.9, 0.9, 0.5), 0.5, 0.5, 0.5 + 1e-9),
        # -(0.5 ln 0.5 + 0.5 ln 0.5) = ln 2
        ("entropy", (0.9, 0.9, 0.9, 0.5), 0.6931471806, 0.6931471806, 0.69),
        # -(0.9 ln 0.9 + 0.1 ln 0.1) = 0.0948245 + 0.2302585
        ("entropy", (0.2, 0.5, 0.4, 0.9), 0.3250829734, 0.3250829735, 0.3250829733),
        ("entropy", (0.2, 0.5, 0.4, 0.1), 0.3250829734, 0.3250829735, 0.3250829733),
    ],
)
def test_confidence_and_entropy_by_hand(criterion, values, found, threshold, stricter):
    tracked = window_values(logits_of("probability", values, offset=3.0), criterion)
    assert statistic(tracked, criterion).item() == pytest.approx(found, abs=1e-9)
    assert should_exit(tracked, threshold, criterion).tolist() == [True]
    assert should_exit(tracked, stricter, criterion).tolist() == [False]


def test_confidence_is_at_least_the_threshold_and_entropy_at_most():
    sure = torch.tensor([[0.75]])  # exact in binary
    assert should_exit(sure, 0.75, "confidence").tolist() == [True]
    assert should_exit(sure, statistic(sure, "entropy").item(), "entropy").tolist() == [True]
    certain = torch.tensor([[1.0], [0.0]])  # 0 ln 0 is 0
    assert should_exit(certain, 0.0, "entropy").tolist() == [True, True]
    assert should_exit(certain, 1.0, "confidence").tolist() == [True, True]


@pytest.mark.parametrize(
    ("values", "others", "exits"),
    [
        ((0.6, 0.9, 0.51, 0.7), 0, True),  # yes four times
        ((0.4, 0.1, 0.3, 0.5), 0, True),  # no four times: one half is no yes
        ((0.4, 0.9, 0.6, 0.7), 1, False),  # the first said no
        ((0.4, 0.9, 0.3, 0.7), 2, False),
        ((0.6, 0.9, 0.6, 0.4), 3, False),  # the last one alone
    ],
)
def test_patience_by_hand(values, others, exits):
    tracked = torch.tensor([values])
    for threshold in (0.0, 1e9):  # it has none
        assert should_exit(tracked, threshold, "patience").tolist() == [exits]
    assert statistic(tracked, "patience").tolist() == [others]


@pytest.mark.parametrize("criterion", ["confidence", "entropy", "patience"])
@pytest.mark.parametrize("place", range(4))
def test_no_probability_never_exits(criterion, place):
    """Confidence and entropy look at the last state, patience at all."""
    values = torch.full((2, 4), 0.9)
    values[1, place] = float("nan")
    loose = 0.0 if criterion == "confidence" else 1e9
    ignored = criterion != "patience" and place != 3
    assert should_exit(values, loose, criterion).tolist() == [True, ignored]


@pytest.mark.parametrize("criterion", ["ratio", "probability"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", range(4))
def test_no_number_never_exits(criterion, bad, place):
    values = torch.ones(3, 4)
    values[1, place] = bad
    assert should_exit(values, 1e9, criterion).tolist() == [True, False, True]
    assert should_exit(torch.full((1, 4), bad), 1e9, criterion).tolist() == [False]


def test_a_ratio_beyond_the_numbers_never_exits():
    """exp(200) is infinite in fp32; the pair goes on instead of stopping on inf - inf."""
    logits = torch.tensor([[[200.0, 0.0]] * 4])
    assert should_exit(window_values(logits, "ratio"), 1e9, "ratio").tolist() == [False]


@examples(deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99), st.sampled_from(ALL))
def test_rows_decide_alone_as_the_criteria_say(window, num_rows, seed, criterion):
    logits = torch.randn(num_rows, window + 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    threshold = {"confidence": 0.7, "entropy": 0.6}.get(criterion, 0.3)
    came = should_exit(window_values(logits, criterion), threshold, criterion).tolist()
    for row, exits in zip(logits.tolist(), came, strict=True):
        softmax = [torch.softmax(torch.tensor(pair, dtype=torch.float64), dim=0).tolist() for pair in row]
        assert exits is _exits(softmax, threshold, criterion)


def _exits(softmax: list[list[float]], threshold: float, criterion: str) -> bool:
    yes, no = softmax[-1]
    if criterion == "confidence":
        return max(yes, no) >= threshold
    if criterion == "entropy":
        return -yes * math.log(yes) - no * math.log(no) <= threshold
    if criterion == "patience":
        return len({yes > no for yes, no in softmax}) == 1
    tracked = [yes / no if criterion == "ratio" else yes for yes, no in softmax]
    deltas = [abs(first - second) for first, second in itertools.pairwise(tracked)]
    return abs(deltas[-1] - sum(deltas[:-1]) / (len(deltas) - 1)) < threshold
