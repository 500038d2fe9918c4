"""Hidden states -> yes/no heads at the LLM's exit layers: the `exit_heads` artifact (Ray Train).

python -m ray_jobs.train_exit_heads --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

from optirag_core.artifacts import Artifact
from optirag_core.config.settings import Settings
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.evaluation.html_page import number
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
    """Copy the LM head to every exit layer and train the copies, and with evidence the LM head, on hidden states."""
    artifacts = open_artifacts(settings, *PARENTS)
    recipe = exit_heads_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    with ray_session(settings.ray), fit(_loop, settings, artifacts, recipe, unit="epoch") as (files, metrics):
        artifact = recipe.save(artifacts.workspace, files, metrics)
    losses = (metrics["validation_loss_of_copy"], metrics["validation_loss"])
    for layer, copy, trained in zip(metrics["layers"], *losses, strict=True):
        log.info("head at layer %d: validation log loss %s, as a plain copy %s", layer, number(trained), number(copy))
    log.info("evidence alone: validation log loss %s", number(metrics["validation_loss_of_evidence"]))
    return artifact


def _loop(config: dict[str, Any]) -> None:
    worker = start_worker(config)
    settings, artifacts = worker.settings, worker.artifacts
    model, _ = load_llm(artifacts["llm"].path)
    heads = untrained_heads(settings, artifacts, model.to(worker.device))
    folder = artifacts["exit_features"].path
    samples, validation = (
        HeadSamples.of(read_features(folder, "heads", split), heads).to(worker.device)
        for split in ("tune", "validation")
    )
    layers, answer_ids = [*heads.layers, heads.num_layers], load_answer_ids(artifacts["llm"].path)
    copies = ExitHeads(model, heads.layers, answer_ids)
    whole = settings.exit_heads.loss == "vocabulary"
    vocabulary = Vocabulary(model.lm_head.weight, answer_ids) if whole else None
    curve = train(
        heads, samples, settings.exit_heads,
        seed=settings.seed, vocabulary=vocabulary, validation=validation,
        workers=worker.workers, checkpoints=worker.checkpoints,
        on_epoch=lambda epoch, loss: worker.progress(epoch, settings.exit_heads.epochs, loss=loss),
    )  # fmt: skip
    metrics = {
        "layers": layers,
        "num_answers": len(samples),
        "curve": curve,
        "validation_loss_of_copy": _losses(copies, validation, layers),
        "validation_loss_of_evidence": _losses(heads, validation, [0])[0] if heads.num_features else None,
        "validation_loss": _losses(heads, validation, layers),
    }
    with results(worker, metrics) as files:
        if files:
            heads.save(files)


def _losses(heads: ExitHeads, validation: HeadSamples, layers: list[int]) -> list[float | None]:
    if not len(validation):
        return [None] * len(layers)
    return [loss.item() for loss in head_losses(heads, validation, layers)]


if __name__ == "__main__":
    run_job(train_exit_heads)
