"""New files of one folder replace the old ones, all or none: written aside, then a record, then moved.

    .replacing/new/<kind>/<version>/<files>           what changes
    .replacing/new/<kind>/<version>/manifest.json     the record, written last: from now on the change happens

Until the record is there, nothing has changed, and what was written aside is thrown away. From then on every call moves
the files again, writes the folder's new manifest last, and removes the record: it does not matter how often. Meanwhile
the folder does not match its manifest, and who opens it gets `ArtifactCorrupt`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optirag_core.lineage import Manifest
from optirag_core.manifest import MANIFEST, manifest_text, parse_manifest
from optirag_core.runs.identity import RUN_FILE
from optirag_core.runs.lease import owned
from optirag_core.storage.base import Storage

FOLDER = ".replacing"
ASIDE = f"{FOLDER}/new"


@contextmanager
def replacing(storage: Storage, lease_s: float) -> Iterator[None]:
    """Be the only process that changes artifacts of a workspace; what a killed one has begun is finished first.

    Args:
        lease_s: one that shows no sign of life for this many seconds is taken for dead.

    Raises:
        RunOwned: another one is at work.
    """
    with owned(storage, FOLDER, lease_s):
        finish_replacing(storage)
        yield


def replace_files(storage: Storage, folder: str, files: Path, manifest: Manifest) -> None:
    """Change a folder's files.

    Args:
        folder: `<kind>/<version>`.
        files: local folder of those that are new; the others stay.
        manifest: of the folder as it will be; files that it does not list go.
    """
    for path in sorted(files.rglob("*")):
        if path.is_file():
            storage.upload(path, f"{ASIDE}/{folder}/{path.relative_to(files).as_posix()}")
    storage.write(f"{ASIDE}/{folder}/{MANIFEST}", manifest_text(manifest).encode())
    finish_replacing(storage)


def finish_replacing(storage: Storage) -> None:
    """Do what records say, and throw away what has none."""
    aside = storage.list(ASIDE)
    for record in [path for path in aside if path.count("/") == ASIDE.count("/") + 3 and path.endswith(f"/{MANIFEST}")]:
        start = record.removesuffix(MANIFEST)
        _move(storage, record, [path.removeprefix(start) for path in aside if path.startswith(start)])
        storage.delete(record)
    for path in storage.list(ASIDE):
        storage.delete(path)


def _move(storage: Storage, record: str, names: list[str]) -> None:
    start = record.removesuffix(f"/{MANIFEST}")
    folder = start.removeprefix(f"{ASIDE}/")
    manifest = parse_manifest(storage.read(record) or b"", f"{storage.uri}/{record}")
    with tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
        for name in [name for name in names if name != MANIFEST]:
            storage.download(f"{start}/{name}", Path(scratch) / "file")
            storage.upload(Path(scratch) / "file", f"{folder}/{name}")
    kept = {f"{folder}/{name}" for name in (*manifest["files"], MANIFEST, RUN_FILE)}
    for path in storage.list(folder):
        if path not in kept:
            storage.delete(path)
    storage.write(f"{folder}/{MANIFEST}", manifest_text(manifest).encode())
