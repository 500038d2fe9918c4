"""Data set and retriever -> an LLM that answers yes or no: the `llm` artifact (Ray Train).

python -m ray_jobs.tune_llm --config ray_jobs/configs/demo.yaml
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.artifacts import Artifact
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.loading import check_context, load_llm, save_answer_ids, save_llm
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.recipes import llm_recipe
from optirag_core.training.answers import answer_scores
from optirag_core.training.llm import TunedLlm, llama_from_scratch
from optirag_core.training.llm import tune_llm as tune
from optirag_core.training.packing import Sample
from optirag_core.training.pretrained import pretrained_place, verified_place, weights_digest
from optirag_core.training.samples import VALIDATION_USERS, few_shots, labelled_samples
from optirag_core.training.tokenizer import scratch_tokenizer
from ray_jobs.command import run_job
from ray_jobs.session import ray_session
from ray_jobs.train_loop import Worker, fit, results, start_worker

log = logging.getLogger(__name__)


def tune_llm(settings: Settings) -> Artifact:
    """Instruction-tune an LLM on the answers to the tuning samples."""
    artifacts = open_artifacts(settings, "dataset", "evidence", "retriever", "index")
    pretrained = settings.llm.init == "pretrained"
    weights = weights_digest(pretrained_place(settings.llm.pretrained.place)) if pretrained else None
    recipe = llm_recipe(settings, artifacts.digests, weights)
    if done := recipe.made(artifacts.workspace):
        return done
    training = fit(_loop, settings, artifacts, recipe, unit="step", weights=weights)
    with ray_session(settings.ray), training as (files, metrics):
        artifact = recipe.save(artifacts.workspace, files, metrics)
    log.info(
        "llm: %d parameters, %d prompts, %d answers; validation AUC %.4f, log loss %.4f (%d pairs)",
        metrics["num_parameters"], metrics["num_prompts"], metrics["num_answers"],
        metrics["validation_auc"] or float("nan"), metrics["validation_log_loss"], metrics["validation_pairs"],
    )  # fmt: skip
    return artifact


def _loop(config: dict[str, Any]) -> None:
    worker = start_worker(config)
    settings, llm = worker.settings, worker.settings.llm
    dataset = Dataset.load(worker.artifacts["dataset"].path)
    model, tokenizer = _untuned(settings, dataset, config["weights"])
    assembler, builder = open_assembler(settings, worker.artifacts, tokenizer)
    answers, tuning = builder.answer_ids, llm.chosen
    mine = dataset.of_role("llm")
    held_out = labelled_samples(assembler, mine, "validation", max_users=VALIDATION_USERS)
    samples = _shots(settings, labelled_samples(assembler, mine, "tune"))
    cold: Sequence[Sample] = ()
    if tuning.cold_start_epochs:
        cold = _shots(settings, labelled_samples(assembler, mine, "tune", similar=False))
    tuned = TunedLlm(model, [], {})
    if llm.init == "scratch" or llm.pretrained.tuning != "none":
        tuned = _tuned(worker, model, answers, samples, cold, held_out)
    del model  # under FSDP it is this worker's part, and the tuned LLM comes to rank 0 whole
    metrics, whole = {}, tuned.llm if worker.rank == 0 else None
    if whole is not None:
        if llm.init == "pretrained":
            whole.to(getattr(torch, llm.pretrained.dtype))
        metrics = {
            "pretrained": llm.pretrained.path if llm.init == "pretrained" else None,
            "num_parameters": sum(parameter.numel() for parameter in whole.parameters()),
            "num_prompts": len(samples),
            "num_answers": sum(len(sample.labels) for sample in samples),
            "epoch_validation_losses": [epoch["validation_loss"] for epoch in tuned.epochs],
            "curve": tuned.curve,
            **_validation(whole.to(worker.device), held_out, answers, tuning.batch_tokens),
        }
    with results(worker, metrics) as folder:
        if folder and whole is not None:
            save_llm(folder, whole, tokenizer)
            save_answer_ids(folder, answers)


def _tuned(
    worker: Worker, model: PreTrainedModel, answers: tuple[int, int],
    samples: Sequence[Sample], cold: Sequence[Sample], held_out: Sequence[Sample],
) -> TunedLlm:  # fmt: skip
    settings, tuning = worker.settings, worker.settings.llm.chosen
    pretrained = settings.llm.pretrained if settings.llm.init == "pretrained" else None
    return tune(
        model, samples, answers, tuning,
        seed=settings.seed, lora=pretrained.lora if pretrained and pretrained.tuning == "lora" else None,
        cold_start_samples=cold, validation=held_out if tuning.select_epoch else (),
        autocast=pretrained is not None and pretrained.dtype == "bfloat16",
        recompute=settings.training.llm.recompute, workers=worker.workers, checkpoints=worker.checkpoints,
        on_step=lambda step: worker.progress(
            step.number, step.total, tokens=step.tokens, loss=step.loss, validation_loss=step.validation_loss
        ),
    )  # fmt: skip


def _shots(settings: Settings, samples: Sequence[Sample]) -> Sequence[Sample]:
    """All samples, or the few of them that a pretrained LLM is given."""
    shots = settings.llm.pretrained.shots if settings.llm.init == "pretrained" else None
    return few_shots(samples, shots, seed=settings.seed)


def _untuned(
    settings: Settings, dataset: Dataset, weights: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Args:
        weights: digest of the pretrained LLM's files on the driver; None: it is trained from scratch.

    Raises:
        ArtifactMismatch: this worker finds other files.
    """
    if weights is None:
        shape = settings.llm.scratch.shape
        tokenizer = scratch_tokenizer(settings.prompt, dataset, shape.vocab_size, evidence=settings.evidence.prompt)
        model = llama_from_scratch(shape, tokenizer, max_tokens=settings.prompt.max_tokens, seed=settings.seed)
        return model, tokenizer
    pretrained = settings.llm.pretrained
    place = verified_place(pretrained.place, weights)
    # Steps of 1e-4 vanish in bfloat16 weights: those that are trained are float32, a LoRA's adapters always are.
    model, tokenizer = load_llm(place, dtype="float32" if pretrained.tuning == "full" else pretrained.dtype)
    check_context(settings.prompt.max_tokens, model.config)
    return model, tokenizer


def _validation(model: Any, samples: list[Sample], answers: tuple[int, int], batch_tokens: int) -> dict[str, Any]:
    labels = [label for sample in samples for label in sample.labels]
    scores = answer_scores(model, samples, answers, batch_tokens=batch_tokens)
    return {f"validation_{name}": value for name, value in vars(binary_metrics(labels, scores)).items()}


if __name__ == "__main__":
    run_job(tune_llm)
