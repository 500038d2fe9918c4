"""LLM, exit heads -> the cheapest exit policy that is certified to cost little: the `exit_policy` artifact.

python -m ray_jobs.calibrate_exits --config ray_jobs/configs/demo.yaml
"""

import logging
from collections.abc import Mapping

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import NORMAL, OVERLOAD, Calibration, save_calibrations
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import open_heads
from optirag_core.inference.policy import require_dtype
from optirag_core.recipes import exit_policy_recipe
from optirag_core.training.exit_features import read_traces
from optirag_core.training.exit_policy import calibrate, evidence_alone
from optirag_core.training.learn_then_test import users_needed
from ray_jobs.command import run_job

log = logging.getLogger(__name__)
PARENTS = ("dataset", "evidence", "retriever", "index", "llm", "exit_features", "exit_heads")


def calibrate_exits(settings: Settings) -> Artifact:
    """Choose the exit policy that `score` uses, with its certificate."""
    artifacts = open_artifacts(settings, *PARENTS)
    require_dtype(artifacts["exit_features"], settings)
    recipe = exit_policy_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    heads, _ = open_heads(settings, artifacts)
    recorded = artifacts["exit_features"]
    frozen = recorded.manifest["config"]["exit_features"]["frozen_prefixes"]
    features, traces = read_traces(recorded.path, heads, settings.exit_policy.window, frozen)
    labels = features.labels.numpy().astype(int)
    if heads.only_evidence:
        calibrations = {NORMAL: evidence_alone(traces, labels, features.users, settings.calibration)}
    else:
        calibrations = calibrate(traces, labels, features.users, settings.calibration, seed=settings.seed)
    with scratch_folder() as files:
        save_calibrations(files, calibrations)
        artifact = recipe.save(artifacts.workspace, files, _metrics(calibrations))
    _tell(calibrations[NORMAL])
    if OVERLOAD in calibrations:
        log.info("for busy times: %s", _cost(calibrations[OVERLOAD]))
    elif settings.calibration.overload_epsilon is not None and calibrations[NORMAL].certified.flops_share:
        log.info("no cheaper policy for busy times within %g nats", settings.calibration.overload_epsilon)
    return artifact


def _metrics(calibrations: Mapping[str, Calibration]) -> dict[str, object]:
    calibration, overload = calibrations[NORMAL], calibrations.get(OVERLOAD)
    certified = calibration.certified
    return {
        "criterion": certified.policy.criterion,
        "num_users": calibration.num_users,
        "num_policies": len(calibration.candidates),
        "p_value": certified.p_value,
        "excess_loss": certified.excess_loss,
        "upper_bound": calibration.upper_bound,
        "auc_difference": certified.auc_difference,
        "flops_ratio": calibration.flops_ratio,
        "mean_exit_layer": certified.mean_exit_layer,
        "overload_upper_bound": overload.upper_bound if overload else None,
        "overload_flops_ratio": overload.flops_ratio if overload else None,
    }


def _tell(calibration: Calibration) -> None:
    needed = users_needed(calibration.epsilon, calibration.delta)
    log.info("tried %d exit policies: %s", len(calibration.candidates), calibration.statement)
    if calibration.chosen:
        log.info("%s", _cost(calibration))
    elif calibration.num_users < needed:
        log.warning(
            "warning: %d users cannot certify %g nats, %d can: raise calibration.epsilon, dataset.split.policy_share "
            "or exit_features.max_users",
            calibration.num_users, calibration.epsilon, needed,
        )  # fmt: skip


def _cost(calibration: Calibration) -> str:
    certified = calibration.certified
    return (
        f"{certified.policy}, layers {list(certified.layers)}: {certified.flops_share:.1%} of full depth's FLOPs, mean "
        f"exit layer {certified.mean_exit_layer:.2f}, {certified.excess_loss:+.5f} nats (at most "
        f"{calibration.upper_bound:+.5f})"
    )


if __name__ == "__main__":
    run_job(calibrate_exits)
