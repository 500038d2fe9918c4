"""This machine's copies of remote files: one folder per user, shared by all processes, under `TMPDIR`."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optirag_core.errors import StorageError
from optirag_core.storage.local import named


def cache_folder() -> Path:
    """The folder, made if it is not there.

    Raises:
        StorageError: somebody else owns it or may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"optirag-cache-{os.getuid()}"
    with named(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StorageError(f"{folder} is not this user's alone: remove it, or point TMPDIR to another folder")
    return folder


def remove_unused(days: float) -> None:
    """Remove the copies that nobody has opened for `days`, and what killed downloads left.

    Files that a process has open or mapped stay with it.
    """
    folder, oldest = cache_folder(), time.time() - days * 86400
    with named(folder):
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):  # another process is at it too
                if entry.is_dir() and entry.stat().st_mtime < oldest:
                    removed = folder / f".removed-{uuid.uuid4().hex}"
                    entry.rename(removed)  # at once: a process that opens it now finds none, not half of one
                    shutil.rmtree(removed, ignore_errors=True)


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """One process of this machine at a time; the lock of a killed one is free at once."""
    with named(entry), entry.with_name(f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
