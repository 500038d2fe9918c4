"""The exit policy that a run follows: the certified one, unless the settings name another."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from optirag_core.artifacts import MADE_BY, Artifact
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import NORMAL, Calibration, load_calibrations
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import Artifacts

CALIBRATED = "calibrated"
"""Value of `exit_policy.criterion` with which a run follows the `exit_policy` artifact."""


def open_policy(settings: Settings, artifacts: Artifacts) -> Choice:
    """The exit policy that scores, and its exit layers.

    Raises:
        ArtifactCorrupt, ArtifactMismatch: as `open_policies`.
    """
    return open_policies(settings, artifacts)[NORMAL]


def open_policies(settings: Settings, artifacts: Artifacts) -> dict[str, Choice]:
    """By name: the exit policy that scores, `NORMAL`, and `OVERLOAD` where one is certified for busy times.

    Raises:
        ArtifactCorrupt, ArtifactMismatch: as `open_calibrations`.
    """
    if calibrations := open_calibrations(settings, artifacts):
        certified = {name: calibration.certified for name, calibration in calibrations.items()}
        return {name: (candidate.policy, candidate.layers) for name, candidate in certified.items()}
    by_hand = ExitPolicy(**settings.exit_policy.model_dump(exclude={"uncertified"}))
    return {NORMAL: (by_hand, settings.exit_heads.layers)}


def open_calibrations(settings: Settings, artifacts: Artifacts) -> dict[str, Calibration]:
    """The certificates of `open_policies`, by name; none where the settings name a policy by hand.

    Raises:
        ArtifactCorrupt: a calibration cannot be read.
        ArtifactMismatch: it is of another `engine.dtype`.
    """
    if settings.exit_policy.criterion != CALIBRATED:
        return {}
    require_dtype(artifacts["exit_policy"], settings)
    return load_calibrations(artifacts["exit_policy"].path)


def run_policy(identity: Mapping[str, Any], artifacts: Mapping[str, Artifact]) -> tuple[ExitPolicy, Calibration | None]:
    """The policy that a committed run followed, and the calibration that chose it.

    Args:
        identity: fields of the run's identity, the `config` of its manifest: dotted names.
        artifacts: by kind, the run's; `exit_policy` among them where the run followed it.

    Returns:
        The policy, and None in place of a calibration for a policy that the settings named.

    Raises:
        ArtifactCorrupt: the calibration cannot be read.
    """
    named: dict[str, Any] = {field.name: identity.get(f"exit_policy.{field.name}") for field in fields(ExitPolicy)}
    if named["criterion"] != CALIBRATED:
        return ExitPolicy(**named), None
    calibration = Calibration.load(artifacts["exit_policy"].path)
    return calibration.certified.policy, calibration


def require_dtype(artifact: Artifact, settings: Settings) -> None:
    """
    Args:
        artifact: `exit_features` or `exit_policy`.

    Raises:
        ArtifactMismatch: its LLM computed in another dtype than the settings ask for: its exits are not these exits.
    """
    if (made_in := artifact.manifest["config"]["dtype"]) != settings.engine.dtype:
        raise ArtifactMismatch(
            f"{artifact.kind}/{artifact.version} is of engine.dtype {made_in}, now it is {settings.engine.dtype}: run "
            f"{MADE_BY[artifact.kind]} again, or restore the setting"
        )
