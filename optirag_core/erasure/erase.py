"""One user leaves a workspace: all steps in order, each of which can be repeated."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from optirag_core.artifacts import MADE_BY, TRAININGS, VARIANTS, Workspace
from optirag_core.erasure.artifacts import erase_from_artifacts
from optirag_core.erasure.events import erase_events
from optirag_core.erasure.journal import Journal
from optirag_core.erasure.runs import erase_from_runs, remove_unfinished
from optirag_core.lineage import HELD_ERASED, manifests, relink
from optirag_core.replacing import replacing
from optirag_core.storage.base import Storage
from optirag_core.storage.cache import remove_unused
from optirag_core.storage.local import PART, LocalStorage

FITTED = ("evidence", "retriever", "llm", "exit_features", "exit_heads", "exit_policy", "baselines")
"""Kinds that learn from users, or are computed by what has learned from them."""

LEFTOVER_S = 600.0
"""A file that was on its way for so long is a killed process's: nothing writes one file for ten minutes."""


@dataclass(frozen=True)
class Erasure:
    """What an erasure found and changed; numbers and folders, nothing of the user."""

    events: int
    rewritten: Sequence[str]  # `<kind>/<version>` of artifacts and runs
    removed: Sequence[str]
    learned: Sequence[str]  # fitted to data that held somebody who is erased by now: to be made anew

    @property
    def jobs(self) -> list[str]:
        """The jobs that make anew what has learned from erased users, in order."""
        kinds = {folder.split("/")[0] for folder in self.learned}
        return [MADE_BY[kind] for kind in FITTED if kind in kinds]


def erase_user(workspace: Workspace, storage: Storage, user_id: str, *, lease_s: float) -> Erasure:
    """Remove a user from everything below a workspace; after an error or a kill, call it again.

    Nothing else may write to the workspace meanwhile; readers may find an artifact that does not match its manifest.

    Args:
        storage: of the workspace.
        lease_s: an erasure, or a run's driver, that shows no sign of life for this many seconds is taken for dead.

    Raises:
        ErasureUnfinished: another user's erasure has to be finished first.
        RunOwned: another erasure is at work, or a driver at a run that was asked for the user.
        ArtifactCorrupt, ArtifactMismatch: an artifact cannot be read; restore it or remove its folder.
    """
    with replacing(storage, lease_s):
        journal = Journal.begin(storage, user_id)
        removed = remove_unfinished(storage, user_id, lease_s)
        _remove_leftovers(storage)
        events = erase_events(storage, user_id)
        rewritten, unusable = erase_from_artifacts(workspace, storage, user_id)
        rewritten += erase_from_runs(storage, user_id)
        relink(storage)
        if not isinstance(storage, LocalStorage):
            remove_unused(0.0)  # this machine's copies
        erasure = Erasure(events, rewritten, [*removed, *unusable], _learned(storage))
        journal.finish(asdict(erasure))
        return erasure


def _remove_leftovers(storage: Storage) -> None:
    """Trainings that are not finished, what a study has trained beside, and on a local disk what killed ones left."""
    for path in (*storage.list(TRAININGS), *storage.list(VARIANTS)):
        storage.delete(path)
    if not isinstance(storage, LocalStorage):
        return
    for path in storage.list(""):
        if any(part.startswith((".staging-", ".replaced-")) for part in path.split("/")):
            storage.delete(path)
    for part in storage.root.rglob(f"{PART}*"):
        if _age_s(part) > LEFTOVER_S:
            part.unlink(missing_ok=True)


def _age_s(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _learned(storage: Storage) -> list[str]:
    return [folder for folder, each in manifests(storage).items() if each["kind"] in FITTED and each.get(HELD_ERASED)]
