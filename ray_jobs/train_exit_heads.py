"""Hidden states -> yes/no heads at the LLM's exit layers: the `exit_heads` artifact (Ray Train).

python -m ray_jobs.train_exit_heads --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

from optirag_core.artifacts import Artifact
from optirag_core.config import Settings
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import untrained_heads
from optirag_core.recipes import exit_heads_recipe
from optirag_core.training.exit_features import read_features
from optirag_core.training.exit_heads import HeadSamples, Vocabulary, head_losses
from optirag_core.training.exit_heads import train_exit_heads as train
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import fit, results, start_worker

log = logging.getLogger(__name__)
PARENTS = ("dataset", "evidence", "retriever", "index", "llm", "exit_features")


def train_exit_heads(settings: Settings) -> Artifact:
    """Copy the LM head to every exit layer and train the copies on the frozen LLM's hidden states."""
    artifacts = open_artifacts(settings, *PARENTS)
    recipe = exit_heads_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    with ray_session(settings.ray), fit(_loop, settings, artifacts, "exit_heads", unit="epoch") as (files, metrics):
        artifact = recipe.save(artifacts.workspace, files, metrics)
    losses = (metrics["validation_loss_untrained"], metrics["validation_loss"])
    for layer, before, after in zip(metrics["layers"], *losses, strict=True):
        log.info("head at layer %d: validation log loss %.4f, as a plain copy %.4f", layer, after, before)
    return artifact


def _loop(config: dict[str, Any]) -> None:
    worker = start_worker(config)
    settings, artifacts = worker.settings, worker.artifacts
    model, _ = load_llm(artifacts["llm"].path)
    heads = untrained_heads(settings, artifacts, model)
    folder = artifacts["exit_features"].path
    samples, validation = (HeadSamples.of(read_features(folder, "heads", split)) for split in ("tune", "validation"))
    layers = [*heads.layers, heads.num_layers]
    untrained = [loss.item() for loss in head_losses(heads, validation, layers)]
    whole = settings.exit_heads.loss == "vocabulary"
    vocabulary = Vocabulary(model.lm_head.weight, load_answer_ids(artifacts["llm"].path)) if whole else None
    train(
        heads, samples, settings.exit_heads,
        seed=settings.seed, vocabulary=vocabulary, validation=validation,
        rank=worker.rank, world_size=worker.world_size,
        on_epoch=lambda epoch, loss: worker.progress(epoch, settings.exit_heads.epochs, loss=loss),
    )  # fmt: skip
    metrics = {
        "layers": layers,
        "num_answers": len(samples),
        "validation_loss_untrained": untrained,
        "validation_loss": [loss.item() for loss in head_losses(heads, validation, layers)],
    }
    with results(worker, metrics) as files:
        if files:
            heads.save(files)


if __name__ == "__main__":
    run_job(train_exit_heads)
