"""Artifacts of earlier versions of OptiRAG get what this one reads, where that needs no training.

    python -m ray_jobs.migrate --config FILE

Killed, the same command finishes; where nothing is to be done, it changes nothing.
"""

import logging

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.migrations import Migrated
from optirag_core.migrations import migrate as migrate_workspace
from optirag_core.storage.base import open_storage
from ray_jobs.command import run_job

log = logging.getLogger(__name__)


def migrate(settings: Settings) -> Migrated:
    """Bring the workspace's artifacts to what this version reads, and name those that have to be made anew."""
    storage = open_storage(settings.workspace, settings.storage)
    workspace = Workspace(settings.workspace, settings.storage)
    migrated = migrate_workspace(workspace, storage, lease_s=settings.run.lease_s)
    log.info("migrated: %s", ", ".join(migrated.changed) or "nothing")
    for folder, why in migrated.to_be_made_anew.items():
        log.warning("warning: %s: %s", folder, why)
    return migrated


if __name__ == "__main__":
    run_job(migrate)
