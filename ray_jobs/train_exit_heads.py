"""LLM -> yes/no heads at its exit layers: the `exit_heads` artifact (Ray Train).

python -m ray_jobs.train_exit_heads --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

from torch import Tensor

from optirag_core.artifacts import Artifact
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.recipes import exit_heads_recipe
from optirag_core.training.exit_heads import Features, exit_features, head_losses
from optirag_core.training.exit_heads import train_exit_heads as train
from optirag_core.training.samples import labelled_samples
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import fit, results, start_worker

log = logging.getLogger(__name__)
VALIDATION_USERS = 1000
"""Enough to tell a trained head from a plain copy: a log loss within about 0.02."""


def train_exit_heads(settings: Settings) -> Artifact:
    """Copy the LM head to every exit layer and train the copies on the frozen LLM."""
    artifacts = open_artifacts(settings, "dataset", "evidence", "retriever", "index", "llm")
    recipe = exit_heads_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    with ray_session(settings.ray), fit(_loop, settings, artifacts, "exit_heads", unit="epoch") as (files, metrics):
        artifact = recipe.save(artifacts.workspace, files, metrics)
    losses = (metrics["validation_loss_untrained"] or (), metrics["validation_loss"] or ())
    for layer, before, after in zip(metrics["layers"], *losses, strict=False):
        log.info("exit head at layer %d: validation log loss %.4f, as a plain copy %.4f", layer, after, before)
    return artifact


def _loop(config: dict[str, Any]) -> None:
    worker = start_worker(config)
    settings, artifacts = worker.settings, worker.artifacts
    dataset = Dataset.load(artifacts["dataset"].path)
    model, tokenizer = load_llm(artifacts["llm"].path)
    model.to(worker.device)
    assembler, _ = open_assembler(settings, artifacts, tokenizer)
    heads = ExitHeads(model, settings.exit_heads.layers, load_answer_ids(artifacts["llm"].path))

    def features(split: str, share: slice, max_users: int | None = None) -> tuple[Features, Tensor]:
        samples = labelled_samples(assembler, dataset.interactions, split, max_users=max_users)[share]
        return exit_features(model, samples, heads.layers, batch_tokens=settings.llm.chosen.batch_tokens)

    training = features("tune", slice(worker.rank, None, worker.world_size))
    validation = features("validation", slice(None), VALIDATION_USERS)
    untrained = _losses(heads, validation)
    train(
        heads, *training, settings.exit_heads,
        seed=settings.seed, validation=validation, world_size=worker.world_size,
        on_epoch=lambda epoch, loss: worker.progress(epoch, settings.exit_heads.epochs, loss=loss),
    )  # fmt: skip
    metrics = {
        "layers": list(heads.layers),
        "num_answers": len(training[1]),
        "validation_loss_untrained": untrained,
        "validation_loss": _losses(heads, validation),
    }
    with results(worker, metrics) as folder:
        if folder:
            heads.save(folder)


def _losses(heads: ExitHeads, validation: tuple[Features, Tensor]) -> list[float] | None:
    """Of each head; None without a validation sample."""
    return [loss.item() for loss in head_losses(heads, *validation)] if len(validation[1]) else None


if __name__ == "__main__":
    run_job(train_exit_heads)
