"""A user leaves score runs.

A committed run keeps its files, page and manifest, without the user's rows; its sums (pairs, exits, rejects) are still
of all users. What a run needs until it is committed (requests, plan, receipts, attempts that lost) holds users and is
read by nobody afterwards: it goes. A run that is not committed and was asked for the user goes as a whole.
"""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from optirag_core.erasure.tables import file_holds, rewrite_parquet
from optirag_core.errors import ArtifactCorrupt
from optirag_core.lineage import changed
from optirag_core.manifest import MANIFEST, file_sha256
from optirag_core.replacing import replace_files
from optirag_core.runs.identity import RUN_FILE
from optirag_core.runs.lease import owned
from optirag_core.runs.run import KIND, THREADS, Run
from optirag_core.storage.base import Storage


def remove_unfinished(storage: Storage, user_id: str, lease_s: float) -> list[str]:
    """Remove the runs that are not committed and were asked for the user; returns their folders.

    Raises:
        RunOwned: a driver is at one of them; nothing of it is removed.
    """
    removed = []
    for run in _runs(storage):
        if run.manifest() is None and _asks_for(run, user_id):
            with owned(storage, run.folder, lease_s):
                for path in sorted(storage.list(run.folder), key=lambda path: "/shards/" in path):  # what tells, last
                    storage.delete(path)
            removed.append(run.folder)
    return removed


def erase_from_runs(storage: Storage, user_id: str) -> list[str]:
    """Rewrite the committed runs that scored or rejected the user; returns their folders.

    Raises:
        ArtifactCorrupt: a file of one differs from its manifest.
    """
    rewritten = []
    for run in _runs(storage):
        if (manifest := run.manifest()) is None:
            continue
        kept = {f"{run.folder}/{name}" for name in (*manifest["files"], MANIFEST, RUN_FILE)}
        for path in storage.list(run.folder):
            if path not in kept:
                storage.delete(path)
        with tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
            files = _without(run, manifest, user_id, Path(scratch))
            if files:
                left = changed(manifest, files={**manifest["files"], **files}, held_erased=True)
                replace_files(storage, run.folder, Path(scratch) / "new", left)
                rewritten.append(run.folder)
    return rewritten


def _runs(storage: Storage) -> list[Run]:
    parts = [path.split("/") for path in storage.list(KIND)]
    return [Run(storage, name) for name in sorted({part[1] for part in parts if len(part) > 2})]


def _asks_for(run: Run, user_id: str) -> bool:
    def asks(path: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
            run.storage.download(path, Path(scratch) / "shard")
            return file_holds(Path(scratch) / "shard", user_id)

    with ThreadPoolExecutor(THREADS) as threads:
        return any(threads.map(asks, run.storage.list(f"{run.folder}/shards")))


def _without(run: Run, manifest: Mapping[str, Any], user_id: str, scratch: Path) -> dict[str, dict[str, Any]]:
    """The run's files that held the user, rewritten below `scratch/new`: name -> sha256, size and rows."""

    def rewritten(name: str) -> dict[str, Any] | None:
        old, new = scratch / "old" / name, scratch / "new" / name
        run.storage.download(f"{run.folder}/{name}", old)
        if file_sha256(old) != manifest["files"][name]["sha256"]:
            raise ArtifactCorrupt(f"{run.uri}/{name} differs from its manifest: restore it, or remove the run")
        rows = rewrite_parquet(old, user_id, new)
        old.unlink()
        return None if rows is None else {"sha256": file_sha256(new), "size": new.stat().st_size, "rows": rows}

    names = [name for name in manifest["files"] if name.endswith(".parquet")]
    with ThreadPoolExecutor(THREADS) as threads:
        found = dict(zip(names, threads.map(rewritten, names), strict=True))
    return {name: entry for name, entry in found.items() if entry is not None}
