"""What prompts are made from, of generated data, without an LLM and without Ray: with times and without."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.artifacts import Artifact, Workspace
from optirag_core.config.data import IndexSettings
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.data.loading import load_raw
from optirag_core.data.splits import split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.fitting import fit_model
from optirag_core.inference.opening import Artifacts
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import save_fold_in, save_vectors
from optirag_core.training.retriever import train_retriever

DAY = 86_400_000_000
"""In microseconds."""

LAST_DAY = 2_000
"""Of the timed data, from 1970 on."""


def small_settings(folder: Path) -> Settings:
    return settings_from(
        {
            "workspace": str(folder),
            "dataset": {"like_threshold": 5, "synthetic": {"num_users": 60, "num_books": 40}},
            "retriever": {"max_epochs": 2, "embedding_dim": 8},
            "prompt": {"template": "books", "num_similar_users": 3, "max_similar_history": 3, "max_history": 6},
            "evidence": {"attributes": ["author"], "prompt": True},
        }
    )


def make_artifacts(settings: Settings, folder: Path, *, timed: bool) -> Artifacts:
    """Dataset, evidence, retriever and index in folders of their own."""
    raw_folder = folder / "raw"
    write_synthetic(raw_folder, settings.dataset.synthetic, seed=0)
    raw = load_raw(settings.dataset, folder=raw_folder)
    ratings = raw.ratings
    if timed:
        days = np.random.default_rng(0).integers(0, LAST_DAY, len(ratings)) * DAY
        column = ratings.column_names.index("event_time")
        ratings = ratings.set_column(column, "event_time", pa.array(days).cast(ratings.schema.field(column).type))
    interactions, _ = split_interactions(ratings, settings.dataset, seed=0)
    dataset = Dataset(interactions, raw.users, raw.items, {})
    paths = {kind: folder / kind for kind in ("dataset", "evidence", "retriever", "index")}
    for path in paths.values():
        path.mkdir()
    dataset.save(paths["dataset"])
    evidence = Evidence.of(interactions, dataset.items, settings.evidence.attributes)
    evidence.save(paths["evidence"])
    fit_model(evidence, interactions.filter(pc.equal(interactions["split"], "train"))).save(paths["evidence"])
    _retriever(settings, interactions, paths)
    config = {"dataset": {"like_threshold": 5}, "retriever": {"method": "gcn"}}
    manifest = {"version": "small", "config": config}
    return Artifacts(
        Workspace(settings.workspace), {kind: Artifact(kind, path, manifest) for kind, path in paths.items()}
    )


def _retriever(settings: Settings, interactions: pa.Table, paths: dict[str, Path]) -> None:
    graph = build_graph(interactions)
    held_out = interactions.filter(pc.equal(interactions["split"], "validation"))
    trained = train_retriever(graph, held_out, settings.retriever, seed=0)
    save_vectors(paths["retriever"], "user", graph.user_ids, trained.user_embeddings)
    save_vectors(paths["retriever"], "item", graph.item_ids, trained.item_embeddings)
    save_fold_in(paths["retriever"], trained.item_fold_in)
    UserIndex.build(graph.user_ids, trained.user_embeddings, IndexSettings()).save(paths["index"])
