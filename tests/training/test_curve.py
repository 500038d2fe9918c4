"""Means over parts by hand."""

import pytest

from optirag_core.training import curve as curve_module
from optirag_core.training.curve import Curve


def test_an_epoch_s_mean_starts_anew():
    curve = Curve()
    assert [curve.add(loss) for loss in (4.0, 2.0)] == [4.0, 3.0]
    curve.end_epoch()
    assert curve.add(1.0) == 1.0


def test_points_are_means_over_equal_parts(monkeypatch):
    """Five losses in at most two parts: three and two of them."""
    monkeypatch.setattr(curve_module, "NUM_POINTS", 2)
    curve = Curve([3.0, 2.0, 1.0, 0.5, 0.25])
    epochs = [{"step": 3, "validation_loss": 0.7}, {"step": 5, "validation_loss": None}]
    assert curve.points(epochs) == {"loss": [[3, 2.0], [5, 0.375]], "validation_loss": [[3, 0.7]]}
    assert Curve().points() == {"loss": [], "validation_loss": []}


def test_goes_on_from_its_state():
    curve, later = Curve(), Curve()
    curve.add(5.0)
    curve.end_epoch()
    curve.add(3.0)
    later.restore(curve.state())
    assert later.add(1.0) == pytest.approx(2.0)
    assert later.losses == [5.0, 3.0, 1.0]
