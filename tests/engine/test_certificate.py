"""A calibration is written and read back whole, says what it found, and is refused where it is damaged."""

from dataclasses import replace

import pytest

from optirag_core.engine.certificate import (
    NORMAL,
    OVERLOAD,
    Calibration,
    Candidate,
    load_calibrations,
    save_calibrations,
)
from optirag_core.engine.policy import ExitPolicy
from optirag_core.errors import ArtifactCorrupt

FULL = Candidate(ExitPolicy("none", 2, 0.0), (), 1.0, 5.0, 0.0, 0.0, accepted=True)
CHEAP = Candidate(
    ExitPolicy("ratio", 3, 0.02, evidence_confidence=0.9, frozen_prefix_after=2), (3, 4), 0.25, 2.5, 0.002, None,
    p_value=0.03, accepted=True,
)  # fmt: skip
CALIBRATION = Calibration(
    epsilon=0.01, delta=0.1, num_users=1500, num_pairs=2900, chosen=1, upper_bound=0.008, data="cd" * 32,
    candidates=(FULL, CHEAP),
)  # fmt: skip


def test_what_the_chosen_policy_saves_and_may_cost_by_hand():
    assert CALIBRATION.certified == CHEAP
    assert CALIBRATION.flops_ratio == 4.0
    assert CALIBRATION.statement == (
        "with confidence 90% it costs at most 0.01 nats of log loss against full depth (p = 0.0300 on 1,500 users)"
    )


def test_full_depth_saves_nothing_and_says_so():
    nothing = replace(CALIBRATION, chosen=0)
    assert (nothing.certified, nothing.flops_ratio) == (FULL, 1.0)
    assert nothing.statement == "full depth: no cheaper policy passed on 1,500 users"


def test_what_changes_no_answer_is_not_said_to_be_tested():
    free = replace(CHEAP, flops_share=0.0, p_value=None)
    untested = replace(CALIBRATION, num_users=0, candidates=(FULL, free))
    assert (untested.certified, untested.flops_ratio) == (free, None)
    assert untested.statement == "no answer changes, as full depth says what the evidence says"


def test_json_keeps_everything():
    assert Calibration.from_json(CALIBRATION.to_json()) == CALIBRATION


def test_files_keep_everything(tmp_path):
    others = {NORMAL: CALIBRATION, OVERLOAD: replace(CALIBRATION, chosen=0)}
    save_calibrations(tmp_path, {NORMAL: CALIBRATION})
    assert load_calibrations(tmp_path) == {NORMAL: CALIBRATION}
    save_calibrations(tmp_path, others)
    assert load_calibrations(tmp_path) == others
    assert (Calibration.load(tmp_path), Calibration.load(tmp_path, OVERLOAD)) == tuple(others.values())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace(b'"epsilon"', b'"epsilom"'),
        lambda text: text.replace(b'"criterion": "none"', b'"criterion": "never"'),
        lambda text: text.replace(b'"chosen": 1', b'"chosen": 2'),
    ],
)
def test_damaged_json_is_refused(damage):
    with pytest.raises(ArtifactCorrupt, match="run calibrate_exits again"):
        Calibration.from_json(damage(CALIBRATION.to_json()))
