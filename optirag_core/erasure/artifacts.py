"""A user leaves the artifacts that hold users: each kind has a function that writes its new files.

They leave what was fitted as it is: weights, the evidence's regression, item vectors. `erase` says which those are.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from optirag_core.artifacts import Artifact, Workspace, scratch_folder
from optirag_core.config.data import IndexSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.mapped import SortedIds, open_mapped
from optirag_core.erasure.tables import holds, rewrite_parquet, without_user
from optirag_core.evidence.evidence import Evidence
from optirag_core.lineage import changed, manifests, meant_by
from optirag_core.manifest import describe
from optirag_core.replacing import replace_files
from optirag_core.retrieval.faiss_index import filled_index
from optirag_core.retrieval.index import ROWS_FILE, UserIndex
from optirag_core.retrieval.vectors import load_vectors, save_vectors
from optirag_core.runs.run import KIND as SCORES
from optirag_core.storage.base import Storage

Rewriter = Callable[[Artifact, Artifact | None, str, Path], None]
"""(artifact, the one that it was made from, user id, local folder for its new files); none, where it lacks the user."""


def erase_from_artifacts(workspace: Workspace, storage: Storage, user_id: str) -> tuple[list[str], list[str]]:
    """Rewrite every artifact that holds the user, parents first.

    Returns:
        The folders of those that were rewritten, and of those that were removed: what they were made from is gone, so
        that no job can use them.

    Raises:
        ArtifactCorrupt: one differs from its manifest.
    """
    rewritten, removed = [], []
    kinds = {folder.split("/")[0] for folder in manifests(storage)} - {SCORES}
    for kind in sorted(kinds, key=lambda kind: (list(REWRITERS).index(kind) if kind in REWRITERS else 99, kind)):
        found = manifests(storage)
        for folder in [folder for folder in found if folder.startswith(f"{kind}/")]:
            parent, rewriter = REWRITERS.get(kind, (None, _tables))
            if rewriter is _tables and not any(name.endswith(".parquet") for name in found[folder]["files"]):
                continue
            source = parent and meant_by(found, parent, found[folder]["parents"].get(parent))
            if parent and source is None:
                _remove(storage, folder)
                removed.append(folder)
            elif _erase(workspace, storage, folder, source, user_id, rewriter):
                rewritten.append(folder)
    return rewritten, removed


def _erase(
    workspace: Workspace, storage: Storage, folder: str, source: str | None, user_id: str, rewriter: Rewriter
) -> bool:
    artifact = workspace.open(*folder.split("/"))
    made_from = workspace.open(*source.split("/")) if source else None
    with scratch_folder() as files:
        rewriter(artifact, made_from, user_id, files)
        old, new = artifact.manifest["files"], describe(files)
        for name in new:
            if old.get(name) == new[name]:
                (files / name).unlink()
        left = changed(artifact.manifest, files={**old, **new}, held_erased=True)
        if left is not artifact.manifest:
            replace_files(storage, folder, files, left)
        return left is not artifact.manifest


def _dataset(artifact: Artifact, _: Artifact | None, user_id: str, files: Path) -> None:
    dataset = Dataset.load(artifact.path)
    if not (holds(dataset.interactions, user_id) or holds(dataset.users, user_id)):
        return
    interactions, users = (without_user(table, user_id) for table in (dataset.interactions, dataset.users))
    info = {**dataset.info, "erased_users": dataset.info.get("erased_users", 0) + 1}
    Dataset(interactions, users, dataset.items, info).save(files)


def _evidence(artifact: Artifact, dataset: Artifact | None, user_id: str, files: Path) -> None:
    """Counted anew; the regression stays, as heads read what it has standardised."""
    if SortedIds(open_mapped(artifact.path / "users.arrow").column(0)).row(user_id) < 0:
        return
    assert dataset is not None
    left = Dataset.load(dataset.path)
    Evidence.of(left.interactions, left.items, Evidence.open(artifact.path).attributes).save(files)


def _retriever(artifact: Artifact, _: Artifact | None, user_id: str, files: Path) -> None:
    ids, embeddings = load_vectors(artifact.path, "user")
    if (row := SortedIds(ids).row(user_id)) < 0:
        return
    others = np.delete(np.arange(len(ids)), row)
    save_vectors(files, "user", ids.take(others), embeddings[others])


def _index(artifact: Artifact, retriever: Artifact | None, user_id: str, files: Path) -> None:
    """Filled anew with the users that it held; the retriever has lost the user by now."""
    assert retriever is not None
    batch = open_mapped(artifact.path / ROWS_FILE)
    ids, embeddings = load_vectors(retriever.path, "user")
    if int(batch.schema.metadata[b"num_users"]) == len(ids):
        return
    row, rows = bisect_left(SortedIds(ids), user_id), batch["row"].to_numpy()  # where the user was
    others = rows[rows != row]
    others = np.where(others > row, others - 1, others).astype(np.int32)
    config = artifact.manifest["config"]
    settings = IndexSettings(**config["index"])
    index = filled_index(embeddings.numpy(), others, settings, seed=config["seed"])
    UserIndex(ids, embeddings, index, others, settings.candidates).save(files)


def _tables(artifact: Artifact, _: Artifact | None, user_id: str, files: Path) -> None:
    for file in sorted(artifact.path.rglob("*.parquet")):
        rewrite_parquet(file, user_id, files / file.relative_to(artifact.path))


REWRITERS: Mapping[str, tuple[str | None, Rewriter]] = {
    "dataset": (None, _dataset),
    "evidence": ("dataset", _evidence),
    "retriever": (None, _retriever),
    "index": ("retriever", _index),
}
"""Kind -> the kind that it is rewritten from, beside itself, and how, in order; others hold users in tables alone."""


def _remove(storage: Storage, folder: str) -> None:
    paths = storage.list(folder)
    for path in sorted(paths, key=lambda path: not path.endswith("/manifest.json")):  # from then on it is no artifact
        storage.delete(path)
