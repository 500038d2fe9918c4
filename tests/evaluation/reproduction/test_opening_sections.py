"""What a report opens with: failed rules stand out, and the control of shuffled labels by hand."""

import pytest

from optirag_core.evaluation.leak_checks import Check
from optirag_core.evaluation.reproduction.document import Figure
from optirag_core.evaluation.reproduction.opening_sections import leaks, mean_over_deals


def test_a_mean_over_deals_by_hand():
    """0.4, 0.5, 0.6: mean 0.5, standard error 0.1 / sqrt(3), and t of 2 degrees of freedom is 4.3027."""
    figure = mean_over_deals([0.4, 0.5, 0.6])

    assert (figure.value, figure.low, figure.high) == pytest.approx((0.5, 0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)


def test_violations_and_labels_that_tell_what_they_cannot_are_failures():
    checks = [Check("kept", 10, 0, None), Check("broken", 10, 2, "user 7")]
    controls = [("blind", Figure(0.51, 0.48, 0.54)), ("seeing", Figure(0.7, 0.65, 0.75))]

    rules, shuffled = leaks(checks, controls).tables

    assert {name: figures[1].is_failure for name, figures in rules.rows} == {"kept": False, "broken": True}
    assert {name: figures[0].is_failure for name, figures in shuffled.rows} == {"blind": False, "seeing": True}
