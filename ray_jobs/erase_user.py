"""A user is removed from the workspace: data set, vectors, index, counts, event log, scores (`optirag_core.erasure`).

    python -m ray_jobs.erase_user --config FILE --user-id ID

Lists what has learned from erased users and is to be trained anew. Killed at any moment, the same command finishes.
"""

import logging

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.erasure.erase import Erasure
from optirag_core.erasure.erase import erase_user as erase
from optirag_core.storage.base import open_storage
from ray_jobs.command import run_job

log = logging.getLogger(__name__)


def erase_user(settings: Settings, *, user_id: str) -> Erasure:
    """Remove a user from everything in the workspace, and list what is to be trained anew."""
    storage = open_storage(settings.workspace, settings.storage)
    workspace = Workspace(settings.workspace, settings.storage)
    erasure = erase(workspace, storage, user_id, lease_s=settings.run.lease_s)
    log.info("erased: %d events; rewritten: %s", erasure.events, ", ".join(erasure.rewritten) or "nothing")
    if erasure.removed:
        log.info("removed: %s", ", ".join(erasure.removed))
    if not erasure.learned:
        log.info("nothing here has learned from an erased user")
        return erasure
    log.warning("learned from users who are erased by now:")
    for folder in erasure.learned:
        kind, version = folder.split("/")
        newest = workspace.latest(kind) == version
        log.warning("  %s%s", folder, "" if newest else "   not the newest: remove it when no run needs it")
    log.warning("train anew (ray_jobs.pipeline does all of it): %s", ", ".join(erasure.jobs))
    return erasure


if __name__ == "__main__":
    run_job(erase_user, arguments=("user_id",))
