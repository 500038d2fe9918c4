"""A workspace that holds one user everywhere: every kind of artifact, runs, events, leftovers of killed processes."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from optirag_core.artifacts import Artifact, Workspace, scratch_folder
from optirag_core.config.data import IndexSettings
from optirag_core.config.run import StorageSettings
from optirag_core.data.dataset import Dataset, write_table
from optirag_core.data.loading import load_raw
from optirag_core.data.splits import split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.fitting import fit_model
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import save_vectors
from optirag_core.storage.base import Storage, open_storage
from optirag_core.training.retriever import train_retriever
from tests.evaluation.committed_runs import commit_run
from tests.inference.small_artifacts import small_settings

USER = "canary-5d2c9e71"
PROFILE = "Bay of the Unrepeatable Canary"
EVENT = "canary's own event id 31337"
ALL = ("dataset", "evidence", "retriever", "index", "llm", "exit_features", "exit_heads", "exit_policy")


def opened(uri: str) -> tuple[Workspace, Storage]:
    settings = StorageSettings()
    return Workspace(uri, settings), open_storage(uri, settings)


def make_workspace(uri: str, folder: Path) -> dict[str, Artifact]:
    """Artifacts with their lineage, by kind; the user has rows in train and test.

    Args:
        folder: local, for raw files.
    """
    workspace, storage = opened(uri)
    dataset = dataset_with(folder)
    made = {"dataset": _saved(workspace, "dataset", {}, {"like_threshold": 5}, dataset.save)}
    _add_evidence(workspace, dataset, made)
    _add_retriever(workspace, dataset, made)
    _add_trained(workspace, made)
    users = [USER, *dataset.users["user_id"].to_pylist()[:3]]
    scored = {(user, item): (0.5, 2) for user in users for item in ("i1", "i2", "i3")}
    for name in ("monday", "tuesday"):
        commit_run(uri, name, {**scored, (USER, "i4"): (-1, 0)}, dataset=made["dataset"])
    _add_unfinished(uri, storage, scored)
    _add_events(storage, users[1])
    return made


def dataset_with(folder: Path, *, without: bool = False) -> Dataset:
    """Generated data and one user more: the most active of them again, under another id.

    Args:
        without: leave that user out again.
    """
    settings = small_settings(folder).dataset
    if not (folder / "raw").is_dir():
        write_synthetic(folder / "raw", settings.synthetic, seed=0)
    raw = load_raw(settings, folder=folder / "raw")
    [(first, _)] = Counter(raw.ratings["user_id"].to_pylist()).most_common(1)
    ratings, users = (
        pa.concat_tables([table, _renamed(table.filter(pc.equal(table["user_id"], first)))])
        for table in (raw.ratings, raw.users)
    )
    interactions, _ = split_interactions(ratings, settings, seed=0)
    if without:
        interactions, users = (table.filter(pc.not_equal(table["user_id"], USER)) for table in (interactions, users))
    return Dataset(interactions, users, raw.items, {"counts": {}})


def hits(uri: str) -> list[str]:
    """Files that hold the user's id, profile or event id, as bytes or in a table's columns; and names of files."""
    _, storage = opened(uri)
    needles = [text.encode(encoding) for text in (USER, PROFILE, EVENT) for encoding in ("utf-8", "utf-16-le")]
    found = []
    for path, content in _contents(storage):
        texts = [content, path.encode()]
        if path.endswith(".parquet"):
            texts.append(json.dumps(pq.read_table(pa.BufferReader(content)).to_pylist(), default=str).encode())
        if any(needle in text for needle in needles for text in texts):
            found.append(path)
    return found


def _contents(storage: Storage) -> Iterator[tuple[str, bytes]]:
    for path in storage.list(""):
        yield path, storage.read(path)
    root = Path(storage.uri)
    for file in root.rglob(".part-*") if root.is_dir() else ():
        yield str(file), file.read_bytes()


def _renamed(table: pa.Table) -> pa.Table:
    columns = {name: table[name] for name in table.column_names}
    columns["user_id"] = pa.array([USER] * len(table), pa.string())
    if "location" in columns:
        columns["location"] = pa.array([PROFILE] * len(table), pa.string())
    return pa.table(columns, schema=table.schema)


def _saved(
    workspace: Workspace, kind: str, parents: Mapping[str, Artifact], config: Mapping[str, Any], write: Any
) -> Artifact:
    digests = {name: artifact.digest for name, artifact in parents.items()}
    with scratch_folder() as files:
        write(files)
        return workspace.save(kind, "v1", files, config=config, parents=digests, metrics={})


def _add_evidence(workspace: Workspace, dataset: Dataset, made: dict[str, Artifact]) -> None:
    evidence = Evidence.of(dataset.interactions, dataset.items, [])

    def write(files: Path) -> None:
        evidence.save(files)
        rows = dataset.interactions
        fit_model(evidence, rows.filter(pc.equal(rows["split"], "train"))).save(files)

    made["evidence"] = _saved(workspace, "evidence", {"dataset": made["dataset"]}, {}, write)


def _add_retriever(workspace: Workspace, dataset: Dataset, made: dict[str, Artifact]) -> None:
    graph = build_graph(dataset.interactions)
    rows, settings = dataset.interactions, small_settings(Path()).retriever
    trained = train_retriever(graph, rows.filter(pc.equal(rows["split"], "validation")), settings, seed=0)

    def write(files: Path) -> None:
        save_vectors(files, "user", graph.user_ids, trained.user_embeddings)
        save_vectors(files, "item", graph.item_ids, trained.item_embeddings)

    made["retriever"] = _saved(workspace, "retriever", {"dataset": made["dataset"]}, {}, write)
    index = UserIndex.build(graph.user_ids, trained.user_embeddings, IndexSettings())
    parents = {kind: made[kind] for kind in ("dataset", "retriever")}
    config = {"index": IndexSettings().model_dump(mode="json", exclude={"min_recall", "gpu"}), "seed": 0}
    made["index"] = _saved(workspace, "index", parents, config, index.save)


def _add_trained(workspace: Workspace, made: dict[str, Artifact]) -> None:
    def weights(files: Path) -> None:
        (files / "weights.bin").write_bytes(bytes(range(200)))

    def features(files: Path) -> None:
        for number, users in enumerate(([USER, "u1", USER], ["u2"])):
            table = pa.table({"user_id": users, "item_id": ["i"] * len(users), "layer_2": [[0.5]] * len(users)})
            write_table(table, files / f"{number:05}.parquet")

    for kind in ("llm", "exit_features", "exit_heads", "exit_policy"):
        made[kind] = _saved(workspace, kind, made, {"prompt": {}}, features if kind == "exit_features" else weights)
    _saved(workspace, "reports", made, {}, lambda files: (files / "report.html").write_text("<p>AUC</p>"))
    _saved(workspace, "comparisons", {}, {}, lambda files: write_table(
        pa.table({"user_id": pa.array(["u1", USER, "u2"]).dictionary_encode()}), files / "users.parquet"))  # fmt: skip


def _add_unfinished(uri: str, storage: Storage, scored: Mapping[tuple[str, str], tuple[float, int]]) -> None:
    """A run that is not committed and one that was not asked for the user; a training; what killed processes left."""
    commit_run(uri, "broken", scored)
    commit_run(uri, "unconcerned", {("u1", "i1"): (0.5, 2)})
    for name in ("broken", "unconcerned"):
        storage.delete(f"scores/{name}/manifest.json")
    storage.write("scores/monday/attempts/000009-lost-scores.parquet", _parquet())
    storage.write(".training/exit_features-v1/requests-0-64/features.parquet", _parquet())
    storage.write("reproduction/dataset/v1/interactions.parquet", _parquet())
    if (root := Path(storage.uri)).is_dir():
        storage.write("dataset/.replaced-0/users.parquet", _parquet())
        part = root / "dataset" / ".part-0"
        part.write_text(USER)
        os.utime(part, (0, 0))


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"user_id": [USER, "u1"]}), sink)
    return sink.getvalue().to_pybytes()


def _add_events(storage: Storage, other: str) -> None:
    log = EventLog(storage, lambda events: None)
    log.append([UserEvent("e1", other, "i1", 5.0, None), UserEvent(EVENT, USER, "i1", 5.0, None)])
    log.append([UserEvent("e3", other, "i2", 5.0, None)])
    log.append([UserEvent("e4", USER, "i3", 1.0, None)])
