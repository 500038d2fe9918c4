"""The exit policy that a run follows: the certified one, unless the settings name another."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from optirag_core.artifacts import MADE_BY, Artifact
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import Calibration
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import Artifacts

CALIBRATED = "calibrated"
"""Value of `exit_policy.criterion` with which a run follows the `exit_policy` artifact."""


def open_policy(settings: Settings, artifacts: Artifacts) -> Choice:
    """The exit policy that scores, and its exit layers.

    Raises:
        ArtifactCorrupt: the calibration cannot be read.
        ArtifactMismatch: it is of another `engine.dtype`.
    """
    named = settings.exit_policy
    if named.criterion == CALIBRATED:
        require_dtype(artifacts["exit_policy"], settings)
        certified = Calibration.load(artifacts["exit_policy"].path).certified
        return certified.policy, certified.layers
    return ExitPolicy(**named.model_dump(exclude={"uncertified"})), settings.exit_heads.layers


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
    named = {field.name: identity.get(f"exit_policy.{field.name}") for field in fields(ExitPolicy)}
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
