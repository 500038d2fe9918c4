"""Artifacts of earlier versions get what this one reads, without training: each migration writes the files that lack.

An artifact keeps its version; its digest and those in its children's manifests follow (`optirag_core.lineage`). What
cannot be computed from what is there is said, with the job that makes it anew.

The manifest's own schema is `manifest.SCHEMA_VERSION`. A change of what is in an artifact's folder comes with a
migration here, or with a line in docs/upgrades.md that it has to be made anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from optirag_core.artifacts import MADE_BY, Artifact, Workspace, scratch_folder
from optirag_core.config.data import IndexSettings
from optirag_core.data.mapped import write_mapped
from optirag_core.errors import ArtifactCorrupt
from optirag_core.lineage import changed, manifests, relink
from optirag_core.manifest import describe
from optirag_core.replacing import replace_files, replacing
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.index import INDEX_FILE, ROWS_FILE
from optirag_core.retrieval.vectors import FOLD_IN_FILE, load_vectors, save_fold_in
from optirag_core.storage.base import Storage

Migration = Callable[[Artifact, Path], str | None]
"""(artifact, local folder for new files) -> why it has to be made anew, or None; nothing to do: no file, and None."""


@dataclass(frozen=True)
class Migrated:
    """What was done, by `<kind>/<version>`."""

    changed: tuple[str, ...]
    to_be_made_anew: Mapping[str, str]  # -> why


def migrate(workspace: Workspace, storage: Storage, *, lease_s: float) -> Migrated:
    """Bring every artifact of a workspace to what this version reads; killed, the same call finishes.

    Nothing else may write to the workspace meanwhile.

    Args:
        storage: of the workspace.
        lease_s: a process that changes artifacts and shows no sign of life for this many seconds is taken for dead.

    Raises:
        RunOwned: another migration or an erasure is at work.
        ArtifactCorrupt, ArtifactMismatch: an artifact is damaged, or of a schema that this version does not read.
    """
    with replacing(storage, lease_s):
        done, anew = [], {}
        for folder, manifest in manifests(storage).items():
            if (migration := MIGRATIONS.get(manifest["kind"])) is None:
                continue
            artifact = workspace.open(*folder.split("/"))
            with scratch_folder() as files:
                if why := migration(artifact, files):
                    anew[folder] = f"{why}: run {MADE_BY[artifact.kind]} again, then what is made from it"
                elif new := describe(files):
                    left = changed(artifact.manifest, files={**artifact.manifest["files"], **new})
                    replace_files(storage, folder, files, left)
                    done.append(folder)
        relink(storage)
        return Migrated(tuple(done), anew)


def _fold_in(artifact: Artifact, files: Path) -> str | None:
    """Retrievers of before 2026-11-30 lack what new interactions are folded in with.

    A factorization machine's are the items' vectors (`gcn.item_fold_in`). Those of a GCN need its raw embeddings, which
    were not kept.
    """
    method = artifact.manifest["config"]["retriever"]["method"]
    if method == "text" or FOLD_IN_FILE in artifact.manifest["files"]:
        return None
    if method == "fm":
        save_fold_in(files, load_vectors(artifact.path, "item")[1])
        return None
    return "its raw embeddings, from which users' vectors are folded in, were not kept; batch jobs work without"


def _index_rows(artifact: Artifact, files: Path) -> str | None:
    """Indexes of before 2026-11-28 hold every user, in order, and lack the file that says so.

    Raises:
        ArtifactCorrupt: the index cannot be read.
    """
    if ROWS_FILE in artifact.manifest["files"]:
        return None
    faiss = load_faiss()
    try:
        num_users = faiss.read_index(str(artifact.path / INDEX_FILE)).ntotal
    except RuntimeError as error:
        raise ArtifactCorrupt(f"{artifact.path / INDEX_FILE} is no index of FAISS: {error}") from None
    facts = {"num_users": str(num_users), "candidates": str(IndexSettings().candidates)}
    rows = pa.array(np.arange(num_users, dtype=np.int32))
    write_mapped(pa.record_batch({"row": rows}, metadata=facts), files / ROWS_FILE)
    return None


MIGRATIONS: Mapping[str, Migration] = {"retriever": _fold_in, "index": _index_rows}
"""Kind -> what brings its artifacts to this version."""
