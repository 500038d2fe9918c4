"""Data set -> GCN embeddings and FAISS index: the `retriever` artifact (Ray Train).

python -m ray_jobs.train_retriever --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

import pyarrow.compute as pc

from optirag_core.artifacts import Artifact, version_of
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.metrics import retrieval_metrics
from optirag_core.retrieval.vectors import save_vectors
from optirag_core.training.retriever import train_retriever as train
from ray_jobs.artifact_job import finished, open_inputs
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import fit, report, start_worker

log = logging.getLogger(__name__)


def train_retriever(settings: Settings) -> Artifact:
    """Fit the GCN on training interactions and index its user vectors."""
    inputs = open_inputs(settings, "dataset")
    config = {"retriever": settings.retriever.model_dump(mode="json"), "seed": settings.seed}
    if done := finished(inputs.workspace, "retriever", config, inputs.digests):
        return done
    with ray_session(settings.ray), fit(_loop, settings, "retriever", unit="epoch") as (files, metrics):
        artifact = inputs.workspace.save(
            "retriever", version_of(config, inputs.digests), files,
            config=config, parents=inputs.digests, metrics=metrics,
        )  # fmt: skip
    log.info(
        "retriever: Recall@20 %.4f (popularity %.4f), NDCG@20 %.4f (popularity %.4f), %d epochs",
        *(metrics[name] for name in ("recall_at_20", "popularity_recall_at_20", "ndcg_at_20", "popularity_ndcg_at_20")),
        metrics["num_epochs"],
    )  # fmt: skip
    return artifact


def _loop(config: dict[str, Any]) -> None:
    settings, worker, progress = start_worker(config)
    dataset = Dataset.load(open_inputs(settings, "dataset")["dataset"].path)
    graph = build_graph(dataset.interactions)
    held_out = dataset.interactions.filter(pc.equal(dataset.interactions["split"], "validation"))
    trained = train(
        graph, held_out, settings.retriever,
        seed=settings.seed, rank=worker.rank, world_size=worker.world_size,
        on_epoch=lambda epoch, losses: progress(epoch + 1, settings.retriever.max_epochs, **losses),
    )  # fmt: skip
    metrics = dict(trained.metrics)
    if worker.rank == 0:
        metrics |= retrieval_metrics(trained.user_embeddings, trained.item_embeddings, graph, held_out)
    with report(worker, metrics) as folder:
        if folder:
            index = UserIndex.build(graph.user_ids, trained.user_embeddings, settings.retriever.index_factory)
            index.save(folder)
            save_vectors(folder, "item", graph.item_ids, trained.item_embeddings)


if __name__ == "__main__":
    run_job(train_retriever)
