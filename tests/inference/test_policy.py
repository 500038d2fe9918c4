"""A run's manifest names its policy, or the calibration that chose it."""

from dataclasses import replace

import pytest

from optirag_core.artifacts import Artifact
from optirag_core.config.exits import ExitPolicySettings
from optirag_core.config.run import EngineSettings
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import NORMAL, OVERLOAD, Calibration, Candidate, save_calibrations
from optirag_core.engine.policy import ExitPolicy
from optirag_core.errors import ArtifactCorrupt, ArtifactMismatch
from optirag_core.inference.policy import open_calibrations, open_policies, open_policy, run_policy

IDENTITY = {
    "exit_policy.criterion": "ratio", "exit_policy.window": 3, "exit_policy.threshold": 0.01,
    "exit_policy.group_stop": 2, "exit_policy.frozen_prefix_after": None, "exit_policy.uncertified": True,
    "engine.dtype": "float32",
}  # fmt: skip


CALIBRATION = Calibration(
    epsilon=0.01, delta=0.1, num_users=500, num_pairs=900, chosen=1, upper_bound=0.008, data="cd" * 32,
    candidates=(
        Candidate(ExitPolicy("none", 2, 0.0), (), 1.0, 5.0, 0.0, 0.0, accepted=True),
        Candidate(ExitPolicy("patience", 3, 0.0), (3,), 0.7, 3.5, 0.002, -0.001, 0.03, accepted=True),
    ),
)  # fmt: skip


CHEAPER = Candidate(ExitPolicy("none", 2, 0.0, evidence_confidence=0.5), (), 0.0, 0.0, 0.015, -0.01, 0.05, True)


@pytest.fixture
def artifacts(tmp_path):
    save_calibrations(tmp_path, {NORMAL: CALIBRATION})
    return {"exit_policy": Artifact("exit_policy", tmp_path, {"version": "1" * 12, "config": {"dtype": "float32"}})}


def test_a_policy_named_by_hand_has_no_calibration(artifacts):
    assert run_policy(IDENTITY, artifacts) == (ExitPolicy("ratio", window=3, threshold=0.01, group_stop=2), None)


def test_a_calibrated_run_followed_the_chosen_candidate(artifacts):
    identity = {"exit_policy.criterion": "calibrated"}
    assert run_policy(identity, artifacts) == (ExitPolicy("patience", 3, 0.0), CALIBRATION)


def test_a_damaged_calibration_is_named(artifacts, tmp_path):
    (tmp_path / "exit_policy.json").write_text("{}")
    with pytest.raises(ArtifactCorrupt, match="calibrate_exits again"):
        run_policy({"exit_policy.criterion": "calibrated"}, artifacts)


def test_a_run_follows_the_chosen_candidate(artifacts):
    assert open_policy(Settings(), artifacts) == (ExitPolicy("patience", 3, 0.0), (3,))


def test_an_overload_policy_is_opened_beside_it_and_never_scores_a_run(artifacts, tmp_path):
    cheaper = replace(CALIBRATION, epsilon=0.02, chosen=2, candidates=(*CALIBRATION.candidates, CHEAPER))
    save_calibrations(tmp_path, {OVERLOAD: cheaper})

    assert open_calibrations(Settings(), artifacts) == {NORMAL: CALIBRATION, OVERLOAD: cheaper}
    assert open_policies(Settings(), artifacts) == {
        NORMAL: (ExitPolicy("patience", 3, 0.0), (3,)), OVERLOAD: (CHEAPER.policy, ()),
    }  # fmt: skip
    assert open_policy(Settings(), artifacts) == (ExitPolicy("patience", 3, 0.0), (3,))


def test_a_policy_named_by_hand_is_alone_and_has_no_certificate(artifacts):
    by_hand = ExitPolicySettings(criterion="probability", threshold=0.5, uncertified=True)
    settings = Settings(exit_policy=by_hand)

    assert open_calibrations(settings, artifacts) == {}
    assert open_policies(settings, artifacts) == {NORMAL: (ExitPolicy("probability", 3, 0.5), (3, 4))}


def test_a_certificate_of_another_dtype_is_refused(artifacts):
    settings = Settings(engine=EngineSettings(dtype="bfloat16"))
    with pytest.raises(ArtifactMismatch, match=r"is of engine\.dtype float32, now it is bfloat16: run calibrate_exits"):
        open_policy(settings, artifacts)
