"""Data set and retriever -> an LLM that answers yes or no: the `llm` artifact (Ray Train).

python -m ray_jobs.tune_llm --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

from optirag_core.artifacts import Artifact, version_of
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.loading import load_llm, save_llm
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.training.llm import answer_scores, llama_from_scratch
from optirag_core.training.llm import tune_llm as tune
from optirag_core.training.packing import Sample
from ray_jobs.artifact_job import finished, open_inputs
from ray_jobs.command import run_job
from ray_jobs.prompt_stage import check_context, labelled_samples, open_assembler, prompt_config, scratch_tokenizer
from ray_jobs.session import ray_session
from ray_jobs.train_loop import fit, report, start_worker

log = logging.getLogger(__name__)
VALIDATION_USERS = 500
"""Enough for an AUC within about 0.02; validation here informs, it does not select."""


def tune_llm(settings: Settings) -> Artifact:
    """Instruction-tune an LLM on the answers to the tuning samples."""
    inputs = open_inputs(settings, "dataset", "retriever")
    config = {
        "llm": settings.llm.model_dump(mode="json"),
        **prompt_config(settings),
        "seed": settings.seed,
    }
    if done := finished(inputs.workspace, "llm", config, inputs.digests):
        return done
    with ray_session(settings.ray), fit(_loop, settings, "llm", unit="step") as (files, metrics):
        artifact = inputs.workspace.save(
            "llm", version_of(config, inputs.digests), files, config=config, parents=inputs.digests, metrics=metrics
        )
    log.info(
        "llm: %d parameters, %d prompts, %d answers; validation AUC %.4f, log loss %.4f (%d pairs)",
        metrics["num_parameters"], metrics["num_prompts"], metrics["num_answers"],
        metrics["validation_auc"] or float("nan"), metrics["validation_log_loss"], metrics["validation_pairs"],
    )  # fmt: skip
    return artifact


def _loop(config: dict[str, Any]) -> None:
    settings, worker, progress = start_worker(config)
    inputs = open_inputs(settings, "dataset", "retriever")
    dataset = Dataset.load(inputs["dataset"].path)
    if settings.llm.init == "scratch":
        tokenizer = scratch_tokenizer(settings.prompt, dataset, settings.llm.shape.vocab_size)
        model = llama_from_scratch(
            settings.llm.shape, tokenizer, max_tokens=settings.prompt.max_tokens, seed=settings.seed
        )
    else:
        model, tokenizer = load_llm(settings.llm.path, dtype=settings.llm.dtype)
        check_context(settings.prompt, model.config)
    assembler, builder = open_assembler(settings, inputs["dataset"], inputs["retriever"], tokenizer)
    samples = labelled_samples(assembler, dataset.interactions, "tune")
    cold = (
        labelled_samples(assembler, dataset.interactions, "tune", similar=False)
        if settings.llm.cold_start_epochs
        else []
    )
    answers = builder.answer_ids
    model.to(worker.device)
    if settings.llm.tuning != "none":
        model = tune(
            model, samples, answers, settings.llm,
            seed=settings.seed, cold_start_samples=cold, rank=worker.rank, world_size=worker.world_size,
            on_step=lambda step: progress(step.number, step.total, loss=step.loss),
        )  # fmt: skip
    metrics = {
        "answer_ids": [answers.yes, answers.no],
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_prompts": len(samples),
        "num_answers": sum(len(sample.labels) for sample in samples),
    }
    if worker.rank == 0:
        held_out = labelled_samples(assembler, dataset.interactions, "validation", max_users=VALIDATION_USERS)
        metrics |= _validation(model, held_out, answers, settings.llm.batch_tokens)
    with report(worker, metrics) as folder:
        if folder:
            save_llm(folder, model, tokenizer)


def _validation(model: Any, samples: list[Sample], answers: tuple[int, int], batch_tokens: int) -> dict[str, Any]:
    labels = [label for sample in samples for label in sample.labels]
    scores = answer_scores(model, samples, answers, batch_tokens=batch_tokens)
    return {f"validation_{name}": value for name, value in binary_metrics(labels, scores).items()}


if __name__ == "__main__":
    run_job(tune_llm)
