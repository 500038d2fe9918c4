"""An earlier run is the newest again, and with it the artifacts that it was scored with.

Nothing is copied or removed: `LATEST` of each kind names another version that is there. `score` and the endpoint use
the newest artifacts, so the next night is as the run was; a training job makes its own settings' artifact the newest.
"""

from optirag_core.artifacts import LATEST, MADE_BY, Workspace
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing
from optirag_core.lineage import manifests, meant_by
from optirag_core.manifest import MANIFEST
from optirag_core.runs.run import KIND, Run
from optirag_core.storage.base import Storage


def roll_back(workspace: Workspace, storage: Storage, name: str) -> dict[str, str]:
    """Make a committed run the newest, and the artifacts that it was scored with the newest of their kinds.

    They are opened first, so that nothing changes where one is damaged. The run's `LATEST` moves last: killed before,
    the same call finishes, and until then jobs find artifacts that do not fit each other and stop.

    Args:
        storage: of the workspace.

    Returns:
        Kind -> version, the run's among them.

    Raises:
        ArtifactMissing: the run is not committed, or an artifact of it is gone.
        ArtifactCorrupt: a file of them is damaged or gone.
    """
    run = Run(storage, name)
    if (manifest := run.manifest()) is None:
        raise ArtifactMissing(f"{run.uri} is not committed: it has no {MANIFEST}; name a run that is")
    there = set(storage.list(run.folder))
    if gone := [file for file in manifest["files"] if f"{run.folder}/{file}" not in there]:
        raise ArtifactCorrupt(f"{run.uri}/{gone[0]} is missing, the manifest lists it: choose another run")
    found, versions = manifests(storage), {}
    for kind, digest in manifest["parents"].items():
        if (folder := meant_by(found, kind, digest)) is None:
            raise ArtifactMissing(
                f"scores/{name} was scored with {kind} {digest[:12]}, which is not in {workspace.uri} any more: choose "
                f"another run, or run {MADE_BY[kind]} with the settings of then"
            )
        versions[kind] = folder.split("/")[1]
        workspace.open(kind, versions[kind])
    versions[KIND] = name
    for kind, version in versions.items():
        storage.write(f"{kind}/{LATEST}", version.encode())
    return versions
