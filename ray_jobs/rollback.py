"""An earlier run of scores, or one that was kept back, is what readers get, and its artifacts are the newest.

    python -m ray_jobs.rollback --config FILE --run 2026-11-21

Killed, the same command finishes. What it does and does not: docs/upgrades.md.
"""

import logging

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.rollback import roll_back
from optirag_core.storage.base import open_storage
from ray_jobs.command import run_job

log = logging.getLogger(__name__)


def rollback(settings: Settings, *, run: str) -> dict[str, str]:
    """Make a committed run the newest, and the artifacts that it was scored with the newest of their kinds.

    Raises:
        ArtifactMissing, ArtifactCorrupt: it is not committed, or something of it is gone or damaged.
    """
    workspace = Workspace(settings.workspace, settings.storage)
    versions = roll_back(workspace, open_storage(settings.workspace, settings.storage), run)
    for kind, version in versions.items():
        log.info("newest of %-12s %s", kind, version)
    return versions


if __name__ == "__main__":
    run_job(rollback, arguments=("run",))
