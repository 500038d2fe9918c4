"""One way to tune the LLM: its memory on any number of workers, and the least number that holds it."""

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from transformers import PreTrainedConfig

from optirag_core.config.settings import Settings
from optirag_core.planning.accelerators import GIB, Device
from optirag_core.planning.activations import Activations, Row, activations
from optirag_core.planning.counts import Counts
from optirag_core.planning.llm import TunedModel, Way, computes_in, tuned_model
from optirag_core.planning.memory import TuningMemory, tuning_memory
from optirag_core.planning.work import busiest_tokens

Parallelism = Literal["ddp", "fsdp"]
MOST_WORKERS = 64
"""More are not looked at."""


@dataclass(frozen=True)
class PlannedTuning:
    """What the memory of any number of workers follows from."""

    model: TunedModel
    of_batch: dict[bool, Activations]  # by whether the weights are in parts
    row: Row  # the longest
    usual_tokens: float  # of a row
    batch_tokens: int
    computes_in: torch.dtype
    saved_bytes: int  # of the tuned LLM
    on_gpu: bool

    @classmethod
    def of(cls, config: PreTrainedConfig, settings: Settings, way: Way, counts: Counts, *, on_gpu: bool) -> Self:
        longest = max(settings.prompt.max_tokens, math.ceil(counts.row_tokens))
        row = Row(longest, max(1, round(counts.candidates)), round(counts.ratings))
        model, computed = tuned_model(config, settings, way), computes_in(settings)
        adapters = model.num_trained if way == "lora" else 0  # merged at the end
        of_batch = {
            sharded: activations(config, settings, way, row, sharded=sharded, on_gpu=on_gpu)
            for sharded in (False, True)
        }
        return cls(
            model, of_batch, row, counts.row_tokens, settings.llm.chosen.batch_tokens, computed,
            (model.num_parameters - adapters) * computed.itemsize, on_gpu,
        )  # fmt: skip

    def memory(self, num_workers: int, parallelism: Parallelism, *, recompute: bool) -> TuningMemory:
        """Of one of the workers: the one that has most of a batch."""
        tokens = busiest_tokens(self.batch_tokens, self.usual_tokens, self.row.tokens, num_workers)
        sharded = num_workers > 1 and parallelism == "fsdp"
        return tuning_memory(
            self.model, self.of_batch[sharded].peak(tokens / self.row.tokens, recompute=recompute),
            num_workers=num_workers, parallelism=parallelism, computes_in=self.computes_in,
            saved_bytes=self.saved_bytes, on_gpu=self.on_gpu,
        )  # fmt: skip

    def least_workers(self, device: Device, parallelism: Parallelism, *, recompute: bool) -> int | None:
        """The fewest workers of which each holds its memory; None: more than `MOST_WORKERS`."""
        first = 2 if parallelism == "fsdp" else 1  # one worker alone is not in parts
        numbers = range(first, MOST_WORKERS + 1)
        held = (n for n in numbers if device.holds(self.memory(n, parallelism, recompute=recompute).peak))
        return next(held, None)

    @property
    def main_memory(self) -> str:
        """What the machines need besides."""
        checkpoint = 2 * self.model.gradient_bytes + self.model.moment_bytes  # weights, the best ones, moments
        return (
            f"main memory: {self.model.weight_bytes / GIB:.1f} GiB per worker while the LLM is loaded, "
            f"{checkpoint / GIB:.2f} GiB on rank 0 for the best weights and a checkpoint"
        )

    def advice(self, device: Device, needed: float) -> str:
        """Whether a worker's bytes fit, and what holds them otherwise."""
        ways = [(parallelism, recompute) for parallelism in get_args(Parallelism) for recompute in (False, True)]
        found = {way: self.least_workers(device, way[0], recompute=way[1]) for way in ways}
        held = "; ".join(
            f"{parallelism}{' with recompute' if recompute else ''} from {number} worker{'s' if number > 1 else ''} on"
            for (parallelism, recompute), number in found.items()
            if number
        )
        held = (
            f"held by {held}"
            if held
            else f"not held by {MOST_WORKERS} workers: take a larger one, or lower prompt.max_tokens"
        )
        shortage = device.shortage(needed, "worker")
        return f"{shortage}; {held} (training.llm.parallelism, recompute, num_workers)" if shortage else held
