"""Manifests: the list of an artifact's files with their hashes, and what the artifact was made from.

The same settings, parents and bytes give the same `digest`; a flipped bit anywhere breaks a hash or the `checksum`.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from optirag_core import __version__
from optirag_core.errors import ArtifactCorrupt, ArtifactMismatch
from optirag_core.storage.local import named

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"


def describe(files: Path) -> dict[str, dict[str, Any]]:
    """Name -> sha256 and size of every file below a folder."""
    return {
        path.relative_to(files).as_posix(): {"sha256": file_sha256(path), "size": path.stat().st_size}
        for path in sorted(files.rglob("*"))
        if path.is_file()
    }


def compose_manifest(
    kind: str,
    version: str,
    described: Mapping[str, Mapping[str, Any]],
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of described files.

    `digest` is the artifact's identity: kind, files, config and parents. `checksum` covers the whole manifest.
    """
    identity = {"kind": kind, "files": dict(described), "config": dict(config), "parents": dict(parents)}
    return seal(
        {
            **identity,
            "schema_version": SCHEMA_VERSION,
            "version": version,
            "digest": digest_of(identity),
            "code_version": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": dict(metrics),
        }
    )


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum that covers the rest; one that is there already is replaced."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return {**rest, "checksum": digest_of(rest)}


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as it is written."""
    return json.dumps(manifest, indent=2, sort_keys=True)


def parse_manifest(text: str | bytes, name: str) -> dict[str, Any]:
    """Read a manifest and verify it; its files are not looked at.

    Args:
        name: where it comes from, for the message.

    Raises:
        ArtifactCorrupt: it is damaged, or lists a file outside its folder.
        ArtifactMismatch: another version of OptiRAG wrote it.
    """
    try:
        manifest = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
        intact = manifest["checksum"] == seal(manifest)["checksum"]
        schema_version, files = manifest["schema_version"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ArtifactCorrupt(f"{name} is damaged: not a manifest; make the artifact again") from None
    if not intact:
        raise ArtifactCorrupt(f"{name} is damaged: its checksum does not match its content; make the artifact again")
    if schema_version != SCHEMA_VERSION:
        wrote = "a newer version of OptiRAG" if schema_version > SCHEMA_VERSION else "an older version of OptiRAG"
        raise ArtifactMismatch(
            f"{name} has schema {schema_version}, this code reads {SCHEMA_VERSION}: {wrote} wrote it, use that one or "
            "make the artifact again"
        )
    for file in files:
        if not _is_inside(file):
            raise ArtifactCorrupt(f"{name} lists {file!r}, which lies outside its folder; do not trust this artifact")
    return manifest


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in file


def verify_files(path: Path, manifest: Mapping[str, Any], origin: str) -> None:
    """Compare the files of a folder with their manifest.

    Args:
        origin: where they come from, for the message.

    Raises:
        ArtifactCorrupt: one is missing, changed or truncated.
    """
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ArtifactCorrupt(f"{origin}/{name} is missing, the manifest lists it; make the artifact again")
        with named(file):
            differs = file.stat().st_size != expected["size"] or file_sha256(file) != expected["sha256"]
        if differs:
            raise ArtifactCorrupt(
                f"{origin}/{name} differs from its manifest (size or sha256); make the artifact again"
            )


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(value: Mapping[str, Any]) -> str:
    """Hex digest of plain values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
