"""Excess losses by hand."""

import numpy as np
import pytest

from optirag_core.training.exit_losses import log_losses


def test_log_losses_by_hand():
    # p = 3/4 at logit ln 3: -ln(3/4) = 0.287682 where liked, -ln(1/4) = 1.386294 where not.
    scores = np.log([3.0, 3.0])
    assert log_losses(scores, np.array([1, 0])) == pytest.approx([0.287682, 1.386294], abs=1e-6)
