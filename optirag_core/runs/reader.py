"""Reads a committed run, the newest or a named one: always whole, and verified."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.artifacts import LATEST, Artifact
from optirag_core.config.run import StorageSettings
from optirag_core.data.schema import REJECTS, SCORES
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing
from optirag_core.manifest import MANIFEST, file_sha256
from optirag_core.runs.run import KIND, Run
from optirag_core.storage.base import open_storage

SCHEMAS = {"scores": SCORES, "rejects": REJECTS}


def read_scores(
    uri: str, *, kind: str = "scores", storage: StorageSettings | None = None,
    kept: Callable[[pa.Table], pa.Table] | None = None,
) -> pa.Table:  # fmt: skip
    """The scores, or with `kind="rejects"` the rejects, of a committed run.

    Args:
        uri: `<workspace>/scores` for the newest run, `<workspace>/scores/<run>` for another; instead of the run's name
            a pointer of `run.pointer` will do.
        kept: table of one file -> the part of it that is wanted; default: all.

    Raises:
        ArtifactMissing: no run is committed there.
        ArtifactCorrupt: a file is missing or differs from the manifest.
    """
    run, manifest = _committed(uri, storage)
    tables = []
    with tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
        file = Path(scratch) / "part.parquet"
        for path in _paths(manifest, kind):
            if not run.storage.exists(f"{run.folder}/{path}"):
                raise ArtifactCorrupt(f"{run.uri}/{path} is missing, the manifest lists it; score again")
            run.storage.download(f"{run.folder}/{path}", file)
            if file_sha256(file) != manifest["files"][path]["sha256"]:
                raise ArtifactCorrupt(f"{run.uri}/{path} differs from its manifest; score again")
            table = pq.read_table(file, page_checksum_verification=True)
            tables.append(kept(table) if kept else table)
    return _concatenated(tables, kind)


def read_artifact(artifact: Artifact, kind: str = "scores") -> pa.Table:
    """The scores or rejects of a run that `Workspace.open` has fetched and verified."""
    files = (artifact.path / path for path in _paths(artifact.manifest, kind))
    return _concatenated([pq.read_table(file, page_checksum_verification=True) for file in files], kind)


def score_files(uri: str, *, kind: str = "scores", storage: StorageSettings | None = None) -> list[str]:
    """Paths or `s3://` URIs of a committed run's Parquet files, for DuckDB, Polars or Spark.

    Raises:
        ArtifactMissing: no run is committed there.
    """
    run, manifest = _committed(uri, storage)
    return [f"{run.uri}/{path}" for path in _paths(manifest, kind)]


def _committed(uri: str, settings: StorageSettings | None) -> tuple[Run, Mapping[str, Any]]:
    parent, _, last = uri.rstrip("/").rpartition("/")
    storage_uri, name = (parent, LATEST) if last == KIND else (parent.rpartition("/")[0], last)
    storage = open_storage(storage_uri or ".", settings or StorageSettings())
    if name.startswith(LATEST):
        latest = storage.read(f"{KIND}/{name}")
        if latest is None:
            raise ArtifactMissing(f"{uri} has no committed run: run `python -m ray_jobs.score` first")
        name = latest.decode(errors="replace").strip()
    run = Run(storage, name)
    manifest = run.manifest()
    if manifest is None:
        raise ArtifactMissing(f"{run.uri} is not committed: it has no {MANIFEST}")
    return run, manifest


def _concatenated(tables: list[pa.Table], kind: str) -> pa.Table:
    return pa.concat_tables(tables) if tables else SCHEMAS[kind].empty_table()


def _paths(manifest: Mapping[str, Any], kind: str) -> list[str]:
    return sorted(path for path in manifest["files"] if path.endswith(f"-{kind}.parquet"))
