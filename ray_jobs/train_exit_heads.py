"""LLM -> yes/no heads at its exit layers: the `exit_heads` artifact (Ray Train).

python -m ray_jobs.train_exit_heads --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

from torch import Tensor

from optirag_core.artifacts import Artifact, version_of
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.training.exit_heads import Features, exit_features, head_losses
from optirag_core.training.exit_heads import train_exit_heads as train
from ray_jobs.artifact_job import finished, open_inputs
from ray_jobs.command import run_job
from ray_jobs.prompt_stage import labelled_samples, open_assembler, prompt_config
from ray_jobs.session import ray_session
from ray_jobs.train_loop import fit, report, start_worker

log = logging.getLogger(__name__)
VALIDATION_USERS = 1000
"""Enough to tell a trained head from a plain copy: a log loss within about 0.02."""
TRAINING_ONLY = {"layers", "learning_rate", "decay", "epochs", "batch_size"}
"""Settings that shape the heads; window, threshold and criterion belong to the policy and are free at scoring."""


def train_exit_heads(settings: Settings) -> Artifact:
    """Copy the LM head to every exit layer and train the copies on the frozen LLM."""
    inputs = open_inputs(settings, "dataset", "retriever", "llm")
    config = {
        "exits": settings.exits.model_dump(mode="json", include=TRAINING_ONLY),
        **prompt_config(settings),
        "seed": settings.seed,
    }
    parents = {"llm": inputs["llm"].digest}
    if done := finished(inputs.workspace, "exit_heads", config, parents):
        return done
    with ray_session(settings.ray), fit(_loop, settings, "exit_heads", unit="epoch") as (files, metrics):
        artifact = inputs.workspace.save(
            "exit_heads", version_of(config, parents), files, config=config, parents=parents, metrics=metrics
        )
    losses = (metrics["validation_loss_untrained"] or (), metrics["validation_loss"] or ())
    for layer, before, after in zip(metrics["layers"], *losses, strict=False):
        log.info("exit head at layer %d: validation log loss %.4f, as a plain copy %.4f", layer, after, before)
    return artifact


def _loop(config: dict[str, Any]) -> None:
    settings, worker, progress = start_worker(config)
    inputs = open_inputs(settings, "dataset", "retriever", "llm")
    dataset = Dataset.load(inputs["dataset"].path)
    model, tokenizer = load_llm(inputs["llm"].path, dtype=settings.llm.dtype)
    model.to(worker.device)
    assembler, builder = open_assembler(settings, inputs["dataset"], inputs["retriever"], tokenizer)
    heads = ExitHeads(model, settings.exits.layers, builder.answer_ids)

    def features(split: str, share: slice, max_users: int | None = None) -> tuple[Features, Tensor]:
        samples = labelled_samples(assembler, dataset.interactions, split, max_users=max_users)[share]
        return exit_features(model, samples, heads.layers, batch_tokens=settings.llm.batch_tokens)

    training = features("tune", slice(worker.rank, None, worker.world_size))
    validation = features("validation", slice(None), VALIDATION_USERS)
    untrained = _losses(heads, validation)
    train(
        heads, *training, settings.exits,
        seed=settings.seed, validation=validation, world_size=worker.world_size,
        on_epoch=lambda epoch, loss: progress(epoch, settings.exits.epochs, loss=loss),
    )  # fmt: skip
    metrics = {
        "layers": list(heads.layers),
        "num_answers": len(training[1]),
        "validation_loss_untrained": untrained,
        "validation_loss": _losses(heads, validation),
    }
    with report(worker, metrics) as folder:
        if folder:
            heads.save(folder)


def _losses(heads: ExitHeads, validation: tuple[Features, Tensor]) -> list[float] | None:
    """Of each head; None without a validation sample."""
    return [loss.item() for loss in head_losses(heads, *validation)] if len(validation[1]) else None


if __name__ == "__main__":
    run_job(train_exit_heads)
