"""The operations on a place that holds files, and how a URI becomes one.

Paths are relative to the place, with `/` between folders. Every write is whole or not there at all.
"""

from pathlib import Path
from typing import Protocol

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError


class Storage(Protocol):
    """A local folder or a bucket's prefix.

    Every operation raises `StorageError` where the place cannot be reached, refuses, or is full.
    """

    uri: str

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Put a file there, or replace it."""

    def create(self, path: str, content: bytes) -> bytes:
        """Put a file there unless one is there already.

        Of any number of callers one wins, and a caller whose own earlier try went through sees its own content.

        Returns:
            The content that is there now: `content` itself, or what came first.
        """

    def upload(self, file: Path, path: str) -> None:
        """Put a local file there, or replace what is there."""

    def download(self, path: str, file: Path) -> None:
        """Copy a file to this machine.

        Raises:
            StorageError: also where there is none.
        """

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def list(self, folder: str) -> list[str]:
        """Paths of all files below a folder, sorted; none for a folder that is not there."""

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""


def open_storage(uri: str, settings: StorageSettings) -> Storage:
    """The place that a URI names: `s3://bucket/prefix`, `file:///path`, or a local path.

    Raises:
        StorageError: the scheme is unknown, or the URI carries credentials.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        from optirag_core.storage.local import LocalStorage

        return LocalStorage(Path(rest if separator else uri))
    if scheme == "s3":
        bucket = rest.split("/")[0]  # of key:secret@bucket it may hold a part, as a secret may hold a slash
        if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
            raise StorageError("an s3:// URI must not carry credentials: use the environment, a profile or a role")
        from optirag_core.storage.s3 import S3Storage  # boto3 is needed there only

        return S3Storage(rest, settings)
    raise StorageError(f"{scheme}:// is no place that OptiRAG knows: give a local path or s3://bucket/prefix")


def is_local(uri: str) -> bool:
    """Whether files of this place can be opened where they are."""
    return "://" not in uri or uri.startswith("file://")
