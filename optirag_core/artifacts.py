"""Artifacts: folders of files with a manifest that proves what they are and what they were made from.

    <workspace>/<kind>/<version>/manifest.json + files        <workspace>/<kind>/LATEST names the newest version

The workspace is a local path or `s3://bucket/prefix`. Files travel first and the manifest last, so a folder without a
manifest is no artifact. Loading verifies size and sha256 of every file before anyone parses it. Local artifacts are
read where they are; those of a bucket are copied once per machine.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, StorageError
from optirag_core.manifest import (
    MANIFEST,
    compose_manifest,
    describe,
    manifest_text,
    parse_manifest,
    verify_files,
)
from optirag_core.storage.base import open_storage
from optirag_core.storage.cache import cache_folder, locked, remove_unused
from optirag_core.storage.local import LocalStorage, named

LATEST = "LATEST"
MADE_BY = {
    "dataset": "prepare_data",
    "evidence": "fit_evidence",
    "retriever": "train_retriever",
    "index": "train_retriever",
    "llm": "tune_llm",
    "exit_features": "exit_features",
    "exit_heads": "train_exit_heads",
    "exit_policy": "calibrate_exits",
    "baselines": "train_baselines",
    "scores": "score",
    "reports": "evaluate",
    "comparisons": "compare",
    "measurements": "reproduce",
    "reproductions": "reproduce",
}
"""Kind -> the job that makes it."""
TRAININGS = ".training"
"""Below it lie the checkpoints of trainings that are not finished: one kind per recipe."""
VARIANTS = "reproduction"
"""Below it lies a workspace of its own: the systems that `reproduce` compares with."""


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its files lie under `path` on this machine."""

    kind: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def version(self) -> str:
        return self.manifest["version"]

    @property
    def digest(self) -> str:
        return self.manifest["digest"]

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.manifest["metrics"]

    def require_parent(self, parent: "Artifact") -> None:
        """Check that this artifact was made from `parent`.

        Raises:
            ArtifactMismatch: it was made from another one, or from none of that kind.
        """
        recorded = self.manifest["parents"].get(parent.kind)
        if recorded != parent.digest:
            raise ArtifactMismatch(
                f"{self.kind}/{self.version} was made from {parent.kind} {_short(recorded)}, but the one at hand is "
                f"{_short(parent.digest)} ({parent.kind}/{parent.version}); run {MADE_BY[self.kind]} again"
            )


class Workspace:
    """The folder or bucket prefix that holds a run's artifacts."""

    def __init__(self, uri: str, storage: StorageSettings = StorageSettings()) -> None:
        self.uri = uri.rstrip("/")
        self._storage = open_storage(self.uri, storage)
        self._cache_days = storage.cache_days

    def save(
        self,
        kind: str,
        version: str,
        files: Path,
        *,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        metrics: Mapping[str, Any],
    ) -> Artifact:
        """Publish the folder `files` as `<kind>/<version>` and make it the newest of its kind.

        Args:
            files: local folder, taken whole; left as it is.
            config: the settings that made it.
            parents: kind -> digest of each artifact it was made from.
            metrics: numbers worth keeping beside it.
        """
        manifest = compose_manifest(kind, version, describe(files), config=config, parents=parents, metrics=metrics)
        self.publish(kind, version, files, manifest)
        return self.open(kind, version)

    def publish(self, kind: str, version: str, files: Path, manifest: Mapping[str, Any]) -> None:
        """`save` with a manifest that is there, without reading back what was written."""
        if isinstance(self._storage, LocalStorage):
            self._publish_local(self._storage.root, kind, version, files, manifest)
        else:
            # The manifest of an older attempt must not stand beside the files of this one.
            self._storage.delete(f"{kind}/{version}/{MANIFEST}")
            self._send(files, f"{kind}/{version}", manifest)
        self._storage.write(f"{kind}/{LATEST}", version.encode())

    def has(self, kind: str, version: str | None = None) -> bool:
        """Whether the artifact (by default the newest of its kind) exists; nothing is verified."""
        version = version or self.latest(kind)
        return version is not None and _is_name(version) and self._storage.exists(f"{kind}/{version}/{MANIFEST}")

    def latest(self, kind: str, pointer: str = LATEST) -> str | None:
        """Version of the newest artifact of a kind, or of what another pointer names (`run.pointer`); or None."""
        content = self._storage.read(f"{kind}/{pointer}")
        return None if content is None else content.decode("utf-8", errors="replace").strip()

    def select(self, kind: str, version: str) -> None:
        """Make an existing version the newest of its kind."""
        if self.latest(kind) != version:
            self._storage.write(f"{kind}/{LATEST}", version.encode())

    def open(self, kind: str, version: str | None = None) -> Artifact:
        """Bring an artifact's files to this machine and verify them.

        Args:
            version: default the newest; or the name of a pointer.

        Raises:
            ArtifactMissing: there is none; the message names the job that makes it.
            ArtifactCorrupt: a file is missing, changed or truncated, or the manifest itself is damaged.
        """
        named, text = version, None
        if named is None or named.startswith(LATEST):
            version = self.latest(kind, named or LATEST)
        if version is not None and _is_name(version):
            text = self._storage.read(f"{kind}/{version}/{MANIFEST}")
        if version is None or text is None:
            found = version or (named if named != LATEST else None)
            wanted, job = kind if found is None else f"{kind}/{found}", MADE_BY.get(kind, "JOB")
            raise ArtifactMissing(
                f"workspace {self.uri} has no {wanted}: run `python -m ray_jobs.{job}` with the same "
                "--config and --workspace first"
            )
        origin = f"{self._storage.uri}/{kind}/{version}"
        manifest = parse_manifest(text, f"{origin}/{MANIFEST}")
        if isinstance(self._storage, LocalStorage):
            path = self._storage.root / kind / version
            verify_files(path, manifest, origin)
        else:
            path = self._copy(kind, version, manifest, origin)
        return Artifact(kind=kind, path=path, manifest=manifest)

    def remove(self, kind: str, version: str | None = None) -> None:
        """Delete one version, or all of a kind; nothing happens where there is none."""
        folder = kind if version is None else f"{kind}/{version}"
        for path in sorted(self._storage.list(folder), key=lambda path: not path.endswith(MANIFEST)):  # no artifact now
            self._storage.delete(path)
        if isinstance(self._storage, LocalStorage):
            shutil.rmtree(self._storage.root / folder, ignore_errors=True)
            with suppress(OSError):  # it holds others
                (self._storage.root / folder).parent.rmdir()

    def _send(self, files: Path, folder: str, manifest: Mapping[str, Any]) -> None:
        for path in sorted(files.rglob("*")):
            if not path.is_dir():
                self._storage.upload(path, f"{folder}/{path.relative_to(files).as_posix()}")
        self._storage.write(f"{folder}/{MANIFEST}", manifest_text(manifest).encode())

    def _publish_local(self, root: Path, kind: str, version: str, files: Path, manifest: Mapping[str, Any]) -> None:
        """Show the whole folder at once."""
        folder = root / kind
        target = folder / version
        staging, replaced = (folder / f".{state}-{uuid.uuid4().hex}" for state in ("staging", "replaced"))
        try:
            self._send(files, f"{kind}/{staging.name}", manifest)
            with named(target):
                if target.exists():  # same version = same settings and parents: the newer attempt replaces the older
                    target.rename(replaced)
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)

    def _copy(self, kind: str, version: str, manifest: Mapping[str, Any], origin: str) -> Path:
        """This machine's copy: made by the first process that needs it, and made anew where it was damaged."""
        entry = cache_folder() / f"{kind.replace('/', '-')}-{version}-{manifest['checksum'][:12]}"
        with suppress(FileNotFoundError):
            os.utime(entry)  # used today
        if not _is_intact(entry, manifest):
            with locked(entry):
                if not _is_intact(entry, manifest):  # another process may have been faster
                    remove_unused(self._cache_days)
                    self._download(f"{kind}/{version}", entry, manifest, origin)
        return entry

    def _download(self, folder: str, entry: Path, manifest: Mapping[str, Any], origin: str) -> None:
        staging = entry.with_name(f".staging-{entry.name}")
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed: we hold the lock
        try:
            for name in manifest["files"]:
                try:
                    self._storage.download(f"{folder}/{name}", staging / name)
                except StorageError:
                    if self._storage.exists(f"{folder}/{name}"):
                        raise
                    break  # verifying tells which
            verify_files(staging, manifest, origin)
            with named(entry):
                staging.mkdir(exist_ok=True)  # of an artifact without files
                (staging / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
                shutil.rmtree(entry, ignore_errors=True)
                staging.rename(entry)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder to collect an artifact's files in."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as name:
        yield Path(name)


def _is_name(version: str) -> bool:
    """Whether a version names a folder right below its kind; a damaged LATEST may hold anything."""
    return version not in ("", ".", "..") and version.isprintable() and "/" not in version


def _is_intact(entry: Path, manifest: Mapping[str, Any]) -> bool:
    if not (entry / MANIFEST).is_file():
        return False
    try:
        verify_files(entry, manifest, str(entry))
    except ArtifactCorrupt:
        return False
    return True


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
