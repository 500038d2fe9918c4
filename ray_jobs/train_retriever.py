"""Data set -> user and item vectors, the `retriever` artifact (Ray Train), and the FAISS index over them, `index`.

python -m ray_jobs.train_retriever --config ray_jobs/configs/demo.yaml
"""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing
from optirag_core.inference.opening import Artifacts, open_artifacts
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.recipes import Recipe, index_recipe, retriever_recipe
from optirag_core.retrieval.faiss_index import require_gpu
from optirag_core.retrieval.graph import BipartiteGraph, build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.metrics import retrieval_metrics
from optirag_core.retrieval.recall import measured, require_recall
from optirag_core.retrieval.text import TextEncoder
from optirag_core.retrieval.vectors import load_vectors, save_fold_in, save_vectors
from optirag_core.training.pretrained import pretrained_place, verified_place, weights_digest
from optirag_core.training.retriever import TrainedRetriever
from optirag_core.training.retriever import train_retriever as train
from optirag_core.training.text_retriever import read_retriever
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import Worker, fit, results, start_worker

log = logging.getLogger(__name__)
ENCODER = "retriever.text.encoder"


def train_retriever(settings: Settings) -> Artifact:
    """Make the vectors by `retriever.method`, from training interactions, and index those of the users."""
    artifacts = open_artifacts(settings, "dataset")
    weights = None
    if settings.retriever.method == "text":
        weights = weights_digest(pretrained_place(settings.retriever.text.place, setting=ENCODER))
    recipe = retriever_recipe(settings, artifacts.digests, weights)
    retriever = recipe.made(artifacts.workspace) or _trained(settings, artifacts, recipe, weights)
    recipe = index_recipe(settings, {**artifacts.digests, "retriever": retriever.digest})
    with suppress(ArtifactMissing, ArtifactCorrupt):  # one that is there may have been made for another bound
        require_recall(artifacts.workspace.open("index", recipe.version).metrics, settings.index)
    return recipe.made(artifacts.workspace) or _indexed(settings, artifacts, retriever, recipe)


def _trained(settings: Settings, artifacts: Artifacts, recipe: Recipe, weights: str | None) -> Artifact:
    require_gpu(settings.index)  # before the training, not after it
    unit = "epoch" if weights is None else "chunk"
    training = fit(_loop, settings, artifacts, recipe, unit=unit, weights=weights)
    with ray_session(settings.ray), training as (files, metrics):
        artifact = recipe.save(artifacts.workspace, files, metrics)
    log.info(
        "retriever: Recall@20 %.4f (popularity %.4f), NDCG@20 %.4f (popularity %.4f), %s",
        *(metrics[name] for name in ("recall_at_20", "popularity_recall_at_20", "ndcg_at_20", "popularity_ndcg_at_20")),
        f"{metrics['num_epochs']} epochs" if weights is None else f"texts read by {metrics['encoder']}",
    )  # fmt: skip
    return artifact


def _loop(config: dict[str, Any]) -> None:
    worker = start_worker(config)
    dataset = Dataset.load(worker.artifacts["dataset"].path)
    graph = build_graph(dataset.interactions)
    held_out = dataset.interactions.filter(pc.equal(dataset.interactions["split"], "validation"))
    weights = config["weights"]
    trained = _fitted(worker, graph, held_out) if weights is None else _read(worker, graph, weights)
    metrics = {}
    if trained:
        ranked = retrieval_metrics(trained.user_embeddings, trained.item_embeddings, graph, held_out)
        metrics = {**trained.metrics, **ranked}
    with results(worker, metrics) as folder:
        if folder and trained:
            save_vectors(folder, "user", graph.user_ids, trained.user_embeddings)
            save_vectors(folder, "item", graph.item_ids, trained.item_embeddings)
            if trained.item_fold_in is not None:
                save_fold_in(folder, trained.item_fold_in)


def _fitted(worker: Worker, graph: BipartiteGraph, held_out: pa.Table) -> TrainedRetriever | None:
    settings = worker.settings.retriever
    return train(
        graph, held_out, settings,
        seed=worker.settings.seed, workers=worker.workers, checkpoints=worker.checkpoints,
        on_epoch=lambda epoch, entry: worker.progress(
            epoch + 1, settings.max_epochs, loss=entry["loss"], validation_loss=entry["validation_loss"],
            recall_at_20=entry["recall_at_20"], ndcg_at_20=entry["ndcg_at_20"],
        ),
    )  # fmt: skip


def _read(worker: Worker, graph: BipartiteGraph, weights: str) -> TrainedRetriever | None:
    settings = worker.settings.retriever.text
    encoder = TextEncoder.load(
        settings, verified_place(settings.place, weights, setting=ENCODER), device=worker.device
    )  # fmt: skip
    texts = NodeTexts.open(worker.settings, worker.artifacts["dataset"].path)
    read = read_retriever(graph, texts, encoder, workers=worker.workers, on_chunk=worker.progress)
    return read and replace(read, metrics={"encoder": settings.encoder, **read.metrics})


def _indexed(settings: Settings, artifacts: Artifacts, retriever: Artifact, recipe: Recipe) -> Artifact:
    user_ids, embeddings = load_vectors(retriever.path, "user")
    active = Histories.open(artifacts["dataset"].path).activity(user_ids)
    started = time.perf_counter()
    index = UserIndex.build(user_ids, embeddings, settings.index, num_interactions=active, seed=settings.seed)
    metrics = {"build_seconds": time.perf_counter() - started, **measured(index, seed=settings.seed)}
    shown = ("num_indexed", "num_users", "recall_at_10", "queries_per_s", "exact_queries_per_s")
    log.info(
        "index: %s of %d of %d users, recall@10 %.4f, %.0f queries/s (exact search %.0f)",
        settings.index.factory, *(metrics[name] for name in shown),
    )  # fmt: skip
    require_recall(metrics, settings.index)
    with scratch_folder() as files:
        index.save(files)
        return recipe.save(artifacts.workspace, files, metrics)


if __name__ == "__main__":
    run_job(train_retriever)
