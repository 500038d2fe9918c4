"""Artifacts: folders of files with a manifest that proves what they are and what they were made from.

    <workspace>/<kind>/<version>/manifest.json + files        <workspace>/<kind>/LATEST names the newest version

The workspace is a local path or `s3://bucket/prefix`. Files travel first and the manifest last, so a folder without a
manifest is no artifact. Loading verifies size and sha256 of every file before anyone parses it.
"""

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.fs

from optirag_core import __version__
from optirag_core.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LATEST = "LATEST"
MADE_BY = {
    "dataset": "prepare_data",
    "retriever": "train_retriever",
    "llm": "tune_llm",
    "exit_heads": "train_exit_heads",
    "scores": "score",
    "reports": "evaluate",
}
"""Kind -> the job that makes it."""


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

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        location = self.uri if "://" in self.uri else str(Path(self.uri).absolute())
        self._filesystem, self._root = pyarrow.fs.FileSystem.from_uri(location)
        self._is_local = isinstance(self._filesystem, pyarrow.fs.LocalFileSystem)

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
        manifest = build_manifest(kind, version, files, config=config, parents=parents, metrics=metrics)
        text = json.dumps(manifest, indent=2, sort_keys=True)
        target = f"{self._root}/{kind}/{version}"
        if self._is_local:
            self._publish_local(files, Path(target), text)
        else:
            self._publish_remote(files, target, text)
        self._write_text(f"{self._root}/{kind}/{LATEST}", version)
        return self.open(kind, version)

    def has(self, kind: str, version: str | None = None) -> bool:
        """Whether the artifact (by default the newest of its kind) exists; nothing is verified."""
        version = version or self.latest(kind)
        return version is not None and self._exists(f"{self._root}/{kind}/{version}/{MANIFEST}")

    def latest(self, kind: str) -> str | None:
        """Version of the newest artifact of a kind, or None."""
        path = f"{self._root}/{kind}/{LATEST}"
        return self._read_text(path).strip() if self._exists(path) else None

    def select(self, kind: str, version: str) -> None:
        """Make an existing version the newest of its kind."""
        if self.latest(kind) != version:
            self._write_text(f"{self._root}/{kind}/{LATEST}", version)

    def open(self, kind: str, version: str | None = None) -> Artifact:
        """Bring an artifact's files to this machine and verify them.

        Raises:
            ArtifactMissing: there is none; the message names the job that makes it.
            ArtifactCorrupt: a file is missing, changed or truncated, or the manifest itself is damaged.
        """
        version = version or self.latest(kind)
        if version is None or not self.has(kind, version):
            wanted = kind if version is None else f"{kind}/{version}"
            raise ArtifactMissing(
                f"workspace {self.uri} has no {wanted}: run `python -m ray_jobs.{MADE_BY[kind]}` with the same "
                "--config and --workspace first"
            )
        path = self._local_copy(kind, version)
        manifest = _read_manifest(path / MANIFEST)
        _verify(path, manifest)
        return Artifact(kind=kind, path=path, manifest=manifest)

    def _publish_local(self, files: Path, target: Path, manifest: str) -> None:
        staging = target.with_name(f".staging-{uuid.uuid4().hex}")
        try:
            shutil.copytree(files, staging)
            (staging / MANIFEST).write_text(manifest, encoding="utf-8")
            if target.exists():  # same version = same settings and parents: the newer attempt replaces the older
                shutil.rmtree(target)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _publish_remote(self, files: Path, target: str, manifest: str) -> None:
        pyarrow.fs.copy_files(
            str(files), target, source_filesystem=pyarrow.fs.LocalFileSystem(), destination_filesystem=self._filesystem
        )
        self._write_text(f"{target}/{MANIFEST}", manifest)

    def _local_copy(self, kind: str, version: str) -> Path:
        source = f"{self._root}/{kind}/{version}"
        if self._is_local:
            return Path(source)
        copy = Path(tempfile.mkdtemp(prefix=f"optirag-{kind}-"))
        pyarrow.fs.copy_files(
            source, str(copy), source_filesystem=self._filesystem, destination_filesystem=pyarrow.fs.LocalFileSystem()
        )
        return copy

    def _exists(self, path: str) -> bool:
        return self._filesystem.get_file_info(path).type == pyarrow.fs.FileType.File

    def _read_text(self, path: str) -> str:
        with self._filesystem.open_input_stream(path) as stream:
            return stream.read().decode("utf-8", errors="replace")

    def _write_text(self, path: str, text: str) -> None:
        part = f"{path}.{uuid.uuid4().hex}" if self._is_local else path  # an S3 put is atomic, a local write is not
        with self._filesystem.open_output_stream(part) as stream:
            stream.write(text.encode("utf-8"))
        if part != path:
            self._filesystem.move(part, path)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder to collect an artifact's files in."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as name:
        yield Path(name)


def version_of(config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Name of the artifact that these settings and parents make: 12 hex digits."""
    return _digest({"config": config, "parents": parents, "code": __version__})[:12]


def build_manifest(
    kind: str,
    version: str,
    files: Path,
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a folder of files.

    `digest` is the artifact's identity: kind, files, config and parents. `checksum` covers the whole manifest.
    """
    described = {
        str(path.relative_to(files)): {"sha256": file_sha256(path), "size": path.stat().st_size}
        for path in sorted(files.rglob("*"))
        if path.is_file()
    }
    return manifest_of(kind, version, described, config=config, parents=parents, metrics=metrics)


def manifest_of(
    kind: str,
    version: str,
    files: Mapping[str, Mapping[str, Any]],
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """As `build_manifest`, of files that are described already: path -> sha256, size."""
    identity = {"kind": kind, "files": dict(files), "config": dict(config), "parents": dict(parents)}
    manifest = {
        **identity,
        "schema_version": SCHEMA_VERSION,
        "version": version,
        "digest": _digest(identity),
        "code_version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": dict(metrics),
    }
    return {**manifest, "checksum": _digest(manifest)}


def _read_manifest(path: Path) -> dict[str, Any]:
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(text: bytes, path: str) -> dict[str, Any]:
    """
    Raises:
        ArtifactCorrupt: it is no manifest, or differs from its checksum.
        ArtifactMismatch: it is of another schema.
    """
    try:
        manifest = json.loads(text)
        described = {key: value for key, value in manifest.items() if key != "checksum"}
        intact = manifest["checksum"] == _digest(described)
        schema_version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactCorrupt(f"{path} is damaged: not a manifest; make the artifact again") from None
    if schema_version != SCHEMA_VERSION:
        raise ArtifactMismatch(f"{path} has schema {schema_version}, this code reads {SCHEMA_VERSION}")
    if not intact:
        raise ArtifactCorrupt(f"{path} is damaged: its checksum does not match its content; make the artifact again")
    return manifest


def _verify(path: Path, manifest: Mapping[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ArtifactCorrupt(f"{file} is missing, the manifest lists it; make the artifact again")
        if file.stat().st_size != expected["size"] or file_sha256(file) != expected["sha256"]:
            raise ArtifactCorrupt(f"{file} differs from its manifest (size or sha256); make the artifact again")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
