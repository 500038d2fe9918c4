"""A folder on this machine, or on a file system that all nodes mount."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optirag_core.errors import StorageError, StorageFull

PART = ".part-"
"""Files on their way carry it in their name; nobody else sees them."""


class LocalStorage:
    """`Storage` of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def read(self, path: str) -> bytes | None:
        with named(self.root / path):
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes) -> None:
        with _part(self.root / path) as part:
            part.write_bytes(content)
            _sync(part)
            part.replace(self.root / path)

    def create(self, path: str, content: bytes) -> bytes:
        in_new_folder = not (self.root / path).parent.is_dir()
        with _part(self.root / path) as part:
            part.write_bytes(content)
            _sync(part)
            try:  # a link appears with its whole content or fails; O_EXCL would show an empty file first
                os.link(part, self.root / path)
            except FileExistsError:
                content = (self.root / path).read_bytes()
            self._sync_folders(path, all_of_them=in_new_folder)  # also of another's link: who is told may rely on it
            return content

    def upload(self, file: Path, path: str) -> None:
        with _part(self.root / path) as part:
            shutil.copyfile(file, part)
            _sync(part)
            part.replace(self.root / path)

    def download(self, path: str, file: Path) -> None:
        with _part(file) as part:
            if not self.exists(path):
                raise StorageError(f"download {self.root / path}: there is no such file")
            shutil.copyfile(self.root / path, part)
            part.replace(file)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def list(self, folder: str) -> list[str]:
        files = (file for file in (self.root / folder).rglob("*") if file.is_file() and PART not in file.name)
        return sorted(file.relative_to(self.root).as_posix() for file in files)

    def delete(self, path: str) -> None:
        with named(self.root / path):
            (self.root / path).unlink(missing_ok=True)

    def _sync_folders(self, path: str, *, all_of_them: bool) -> None:
        """Make a file's name as durable as its content; all of them: and the names of the folders that lead to it."""
        for folder in (self.root / path).parents:
            _sync(folder)
            if folder == self.root or not all_of_them:
                break


@contextmanager
def _part(target: Path) -> Iterator[Path]:
    part = target.with_name(f"{PART}{uuid.uuid4().hex}")
    with named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """The system's errors as ours, with the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left for {path}: free some and run the same command again; what is finished is kept"
            ) from None
        raise StorageError(f"{path}: {error.strerror or error}") from None
