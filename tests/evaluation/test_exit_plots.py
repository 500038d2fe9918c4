"""The plot of a calibration says which policy is certified, draws those near the bound, and survives full depth."""

from dataclasses import replace

import pytest

from optirag_core.engine.certificate import Calibration, Candidate
from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.exit_plots import draw_calibration


@pytest.fixture
def calibration() -> Calibration:
    def candidate(threshold: float, share: float, loss: float, p_value: float | None = None) -> Candidate:
        policy = ExitPolicy("ratio", 2, threshold)
        return Candidate(policy, (3,), share, 4.0, loss, 0.0, p_value, p_value is not None and p_value <= 0.1)

    full = Candidate(ExitPolicy("none", 2, 0.0), (), 1.0, 5.0, 0.0, 0.0, accepted=True)
    others = candidate(0.01, 0.8, 0.001, 0.02), candidate(0.1, 0.5, 0.003, 0.3), candidate(0.2, 0.6, 0.004)
    far = candidate(0.4, 0.4, 0.5)
    return Calibration(0.002, 0.1, 1500, 3000, 1, 0.0018, "0" * 64, (full, *others, far))


def test_the_certified_policy_is_told(calibration):
    plot = draw_calibration(calibration)
    assert "Certified: 80.0% of full depth" in plot.svg
    assert "1,500 users" in plot.caption
    assert "at most 0.002 nats of log loss" in plot.caption
    assert "bound 2" in plot.svg
    assert plot.caption.endswith("Not drawn, as further from zero than 5 bounds: 1 policy.")


def test_policies_that_are_not_drawn_are_counted(calibration):
    far = calibration.candidates[-1]
    plot = draw_calibration(replace(calibration, candidates=(*calibration.candidates, *[far] * 1199)))
    assert plot.caption.endswith("Not drawn, as further from zero than 5 bounds: 1,200 policies.")


def test_full_depth_alone_is_drawn(calibration):
    plot = draw_calibration(replace(calibration, chosen=0, candidates=calibration.candidates[:1]))
    assert "full depth: no cheaper policy passed" in plot.caption
    assert "Not drawn" not in plot.caption
