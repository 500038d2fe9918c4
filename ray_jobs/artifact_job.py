"""What the artifact-making jobs share: open the parents, name the version, skip what is there already."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optirag_core.artifacts import Artifact, Workspace, version_of
from optirag_core.config import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The verified parents of a run, newest of each kind, with their lineage checked against each other."""

    workspace: Workspace
    artifacts: Mapping[str, Artifact]

    def __getitem__(self, kind: str) -> Artifact:
        return self.artifacts[kind]

    @property
    def digests(self) -> dict[str, str]:
        return {kind: artifact.digest for kind, artifact in self.artifacts.items()}


def open_inputs(settings: Settings, *kinds: str, versions: Mapping[str, str] | None = None) -> Inputs:
    """Open artifacts, parents first: the given versions, else the newest of each kind.

    Raises:
        ArtifactMissing, ArtifactCorrupt, ArtifactMismatch
    """
    workspace = Workspace(settings.workspace, settings.storage)
    opened: dict[str, Artifact] = {}
    for kind in kinds:
        artifact = workspace.open(kind, versions[kind] if versions else None)
        for parent in opened.values():
            if parent.kind in artifact.manifest["parents"]:
                artifact.require_parent(parent)
        opened[kind] = artifact
    return Inputs(workspace, opened)


def finished(workspace: Workspace, kind: str, config: Mapping[str, Any], parents: Mapping[str, str]) -> Artifact | None:
    """The artifact that these settings and parents already made, now the newest of its kind; else None."""
    version = version_of(config, parents)
    if not workspace.has(kind, version):
        return None
    artifact = workspace.open(kind, version)
    workspace.select(kind, version)
    log.info("%s/%s is there already: nothing to do", kind, version)
    return artifact
