"""The pipeline chooses the policy that scores; another one is named in the settings and called uncertified."""

import numpy as np
import pytest
import torch

from optirag_core.config.exits import CalibrationSettings
from optirag_core.engine.certificate import CERTIFICATE_FILE, NORMAL, OVERLOAD, Calibration, load_calibrations
from optirag_core.errors import ArtifactCorrupt
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_heads, open_scorer, open_scorers
from optirag_core.training.exit_features import read_traces
from optirag_core.training.exit_policy import calibrate
from ray_jobs.calibrate_exits import calibrate_exits
from ray_jobs.command import parse
from tests.finished_run import changed

pytestmark = pytest.mark.ray


def test_the_artifact_holds_what_the_traces_say(finished_run):
    artifacts = open_artifacts(finished_run, *TRAINED)
    calibration = Calibration.load(artifacts["exit_policy"].path)
    folder = artifacts.workspace.open("exit_features").path
    heads, _ = open_heads(finished_run, artifacts)
    features, traces = read_traces(folder, heads, finished_run.exit_policy.window, [])
    labels = features.labels.numpy().astype(int)

    expected = calibrate(traces, labels, features.users, finished_run.calibration, seed=finished_run.seed)
    assert {NORMAL: calibration} == expected
    assert set(np.unique(labels)) <= {0, 1}
    assert artifacts["exit_policy"].metrics["num_users"] == calibration.num_users


def test_the_certified_policy_scores(own_workspace):
    loose = {"epsilon": 0.9, "thresholds": (5.0,), "criteria": ("ratio",), "evidence_shares": (0.0,)}
    settings = changed(own_workspace, calibration=CalibrationSettings(**loose).model_dump())
    calibrate_exits(settings)

    artifacts = open_artifacts(settings, *TRAINED)
    scorer = open_scorer(settings, artifacts)

    certified = Calibration.load(artifacts["exit_policy"].path).certified
    assert (scorer.policy, scorer.exit_layers) == (certified.policy, certified.layers)
    assert scorer.policy.criterion == "ratio"  # a bound of 0.9 nats lets any policy pass


def test_the_endpoint_gets_a_cheaper_policy_on_the_same_weights(own_workspace):
    bounds = {"epsilon": 1e-6, "overload_epsilon": 0.9, "criteria": ("ratio",)}  # nothing passes, and all
    settings = changed(own_workspace, calibration=CalibrationSettings(**bounds).model_dump())
    artifact = calibrate_exits(settings)
    artifacts = open_artifacts(settings, *TRAINED)

    scorers = open_scorers(settings, artifacts)

    certified = {name: Calibration.load(artifact.path, name).certified for name in (NORMAL, OVERLOAD)}
    assert {name: scorer.policy for name, scorer in scorers.items()} == {
        name: candidate.policy for name, candidate in certified.items()
    }
    assert certified[OVERLOAD].flops_share < certified[NORMAL].flops_share == 1
    assert scorers[NORMAL]._heads is scorers[OVERLOAD]._heads
    assert scorers[NORMAL]._decoder._model is scorers[OVERLOAD]._decoder._model
    assert open_scorer(settings, artifacts).policy == certified[NORMAL].policy


def test_heads_that_read_no_hidden_state_run_no_layer(own_workspace, monkeypatch):
    """Whatever the bound and however few the users."""

    def without_states(settings, artifacts):
        heads, own = open_heads(settings, artifacts)
        head = heads[heads.num_layers]
        with torch.no_grad():
            head.weight.zero_()
        head.evidence.load_state_dict(heads.on_evidence(0).state_dict())
        return heads, own

    monkeypatch.setattr("ray_jobs.calibrate_exits.open_heads", without_states)
    settings = changed(own_workspace, calibration={"epsilon": 1e-6, "overload_epsilon": 0.9})

    artifact = calibrate_exits(settings)

    assert list(load_calibrations(artifact.path)) == [NORMAL]
    assert Calibration.load(artifact.path).certified.flops_share == 0
    assert open_scorer(settings, open_artifacts(settings, *TRAINED)).policy.evidence_confidence == 0.5


def test_without_a_looser_bound_the_endpoint_has_one_policy(finished_run):
    scorers = open_scorers(finished_run, open_artifacts(finished_run, *TRAINED))
    assert list(scorers) == [NORMAL]


def test_a_policy_named_by_hand_scores_instead(finished_run):
    by_hand = {"criterion": "probability", "threshold": 0.5, "uncertified": True}
    scorer = open_scorer(changed(finished_run, exit_policy=by_hand), open_artifacts(finished_run, *TRAINED))
    assert (scorer.policy.criterion, scorer.policy.threshold, scorer.exit_layers) == ("probability", 0.5, (3, 4))


def test_uncertified_is_a_flag(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("exit_policy: {criterion: ratio}\n", encoding="utf-8")
    settings, _ = parse(["--config", str(config), "--uncertified", "--seed", "3"])
    assert (settings.exit_policy.uncertified, settings.seed) == (True, 3)


def test_a_damaged_certificate_is_refused(tmp_path):
    (tmp_path / CERTIFICATE_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match="run calibrate_exits again"):
        Calibration.load(tmp_path)
