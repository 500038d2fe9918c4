"""A job's settings -> what each stage will need: memory, optimiser steps, FLOPs, hours, and whether it fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig

from optirag_core.config.run import ActorsSettings, WorkersSettings
from optirag_core.config.settings import Settings
from optirag_core.engine.cost import ModelShape
from optirag_core.planning.accelerators import Device, device_of, measured_cpu
from optirag_core.planning.counts import Counts, count
from optirag_core.planning.llm import Way, computes_in, num_parameters, planned_config
from optirag_core.planning.memory import FLOAT32_BYTES, scoring_memory
from optirag_core.planning.tuning import PlannedTuning
from optirag_core.planning.work import TuningWork, heads_flops, scoring_flops, tuning_work


@dataclass(frozen=True)
class Stage:
    """One line of a plan."""

    job: str
    name: str
    workers: int
    device: Device
    memory: float  # bytes of one worker
    flops: float  # of all workers
    hours: float
    chosen: bool = True  # by the settings; the other way to tune is planned, too
    steps: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)  # of the memory, bytes by name
    notes: Sequence[str] = ()

    @property
    def fits(self) -> bool:
        return self.device.holds(self.memory)


@dataclass(frozen=True)
class Plan:
    """All stages, and what they are planned for."""

    llm: str  # whose shape
    num_parameters: int
    counts: Counts
    stages: Sequence[Stage]


@dataclass(frozen=True)
class _Subject:
    """What all stages are planned from."""

    settings: Settings
    config: PreTrainedConfig
    num_parameters: int
    counts: Counts

    @property
    def shape(self) -> ModelShape:
        return ModelShape.of(self.config)

    def device(self, processes: WorkersSettings | ActorsSettings) -> Device:
        return device_of(self.settings, processes, measured_cpu(processes.torch_threads))


def plan(settings: Settings) -> Plan:
    """Plan every stage that runs the LLM.

    Raises:
        ConfigError: GPUs are reserved, of no type or of one without figures.
        ModelError: the LLM at hand has no config, or not the layers that a LoRA names.
    """
    config, source = planned_config(settings)
    subject = _Subject(settings, config, num_parameters(config), count(settings))
    ways: tuple[Way, ...] = ("full",) if settings.llm.init == "scratch" else ("lora", "full")
    stages = [_tune(subject, way) for way in ways]
    stages += [_exit_features(subject), _exit_heads(subject), _score(subject)]
    return Plan(source, subject.num_parameters, subject.counts, stages)


def _tune(subject: _Subject, way: Way) -> Stage:
    settings, workers = subject.settings, subject.settings.training.llm
    device, num_workers = subject.device(workers), max(1, workers.num_workers)
    planned = PlannedTuning.of(subject.config, settings, way, subject.counts, on_gpu=device.is_gpu)
    memory = planned.memory(num_workers, workers.parallelism, recompute=workers.recompute)
    work = tuning_work(
        subject.shape, planned.model, way, settings.llm.chosen, subject.counts,
        vocab_size=subject.config.vocab_size, num_workers=num_workers, recompute=workers.recompute,
    )  # fmt: skip
    name = f"LoRA of rank {settings.llm.pretrained.lora.rank}" if way == "lora" else "all weights"
    return Stage(
        "tune_llm", f"tune_llm, {name}", num_workers, device, memory.peak, work.flops,
        device.hours(work.busiest, computes_in(settings), _training(settings, device)),
        chosen=settings.llm.init == "scratch" or settings.llm.pretrained.tuning == way, steps=work.steps,
        parts=memory.parts,
        notes=[
            planned.advice(device, memory.peak), planned.main_memory,
            *_idle(settings, subject.counts, work, num_workers),
        ],
    )  # fmt: skip


def _idle(settings: Settings, counts: Counts, work: TuningWork, num_workers: int) -> list[str]:
    """What workers lose that have fewer prompts of a batch than others."""
    used = work.rows / (num_workers * math.ceil(work.rows / num_workers))
    if used == 1.0:
        return []
    enough = math.ceil(num_workers * counts.row_tokens)
    return [
        f"batches of {work.rows} prompts use {used:.0%} of {num_workers} workers: batch_tokens {enough:,} gives each "
        f"worker one (now {settings.llm.chosen.batch_tokens:,})"
    ]


def _exit_features(subject: _Subject) -> Stage:
    """The policy's prompts go through once more for each frozen prefix."""
    counts, again = subject.counts, len(subject.settings.exit_features.frozen_prefixes)
    candidates = counts.labelled_pairs / max(1, counts.labelled_prompts)
    passes = 1 + again * counts.policy_prompts / max(1, counts.labelled_prompts)
    return _scored(subject, "exit_features", counts.labelled_prompts, candidates, passes)


def _score(subject: _Subject) -> Stage:
    asked = subject.settings.plan
    return _scored(subject, "score", asked.pairs / asked.candidates_per_user, asked.candidates_per_user, 1)


def _scored(subject: _Subject, job: str, prompts: float, candidates: float, passes: float) -> Stage:
    """A job on the scorers."""
    settings, counts, shape = subject.settings, subject.counts, subject.shape
    device, dtype = subject.device(settings.actors), getattr(torch, settings.engine.dtype)
    flops = passes * scoring_flops(shape, prompts, candidates, counts.prefix_tokens, counts.suffix_tokens)
    memory = scoring_memory(
        shape, subject.num_parameters * dtype.itemsize, settings.engine.max_tokens_in_flight, dtype
    )  # fmt: skip
    utilization = settings.plan.scoring_utilization or device.accelerator.scoring_utilization
    number = settings.actors.num_scorers
    return Stage(
        job, f"{job}, {round(prompts * candidates):,} pairs", number, device, memory, flops,
        device.hours(flops / number, dtype, utilization),
        notes=_shortage(device, memory),
    )  # fmt: skip


def _exit_heads(subject: _Subject) -> Stage:
    settings, answers = subject.settings, subject.counts.head_answers
    workers, heads = settings.training.exit_heads, len(settings.exit_heads.layers) + 1
    device, number = subject.device(workers), max(1, workers.num_workers)
    compared = subject.config.vocab_size if settings.exit_heads.loss == "vocabulary" else 0
    flops = heads_flops(subject.shape.width, heads, answers, settings.exit_heads.epochs, compared)
    llm = subject.num_parameters * computes_in(settings).itemsize  # the worker loads it whole
    memory = llm + answers * heads * subject.shape.width * FLOAT32_BYTES
    hours = device.hours(flops / number, torch.float32, _training(settings, device))
    return Stage(
        "train_exit_heads", "train_exit_heads", number, device, memory, flops, hours, notes=_shortage(device, memory)
    )


def _training(settings: Settings, device: Device) -> float:
    return settings.plan.training_utilization or device.accelerator.training_utilization


def _shortage(device: Device, memory: float) -> list[str]:
    shortage = device.shortage(memory, "process")
    return [f"{shortage}: take a larger one, or engine.dtype bfloat16 for scorers"] if shortage else []
