"""Bytes on the device of a training worker, and of a scorer.

Shapes: W workers, T tokens of an engine's step, D model width, F width of the MLP, Q and K of all query and key heads.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch

from optirag_core.engine.cost import ModelShape
from optirag_core.planning.llm import TunedModel

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TuningMemory:
    """What a worker holds, in bytes."""

    weights: float
    gradients: float
    moments: float
    buckets: float  # DDP's second copy of the gradients
    whole_layers: float  # FSDP2's weights and gradients that are not in parts at the moment
    activations: float
    optimizer_step: float  # temporaries of the step, when activations are gone
    whole_llm: float  # on rank 0 at the end, for validation

    @property
    def peak(self) -> float:
        held = self.weights + self.gradients + self.moments + self.buckets
        return max(held + max(self.activations + self.whole_layers, self.optimizer_step), self.whole_llm)

    @property
    def parts(self) -> dict[str, float]:
        """What is more than nothing, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}


def tuning_memory(
    model: TunedModel, activations: float, *, num_workers: int, parallelism: Literal["ddp", "fsdp"],
    computes_in: torch.dtype, saved_bytes: float, on_gpu: bool,
) -> TuningMemory:  # fmt: skip
    """Memory of one worker.

    FSDP2 divides weights, gradients and moments by the workers. Whole at a time are the root (embeddings and LM head)
    and two layers, one of them fetched ahead, in the type that is computed in; and the gradients of the root and of one
    layer, in that type and in float32, which they are reduced in.

    Args:
        activations: bytes of the worker's part of a batch.
        saved_bytes: of the LLM that is put together at the end.
        on_gpu: AdamW takes all tensors at once there, with a temporary copy of the second moments.
    """
    sharded = num_workers > 1 and parallelism == "fsdp"
    share = num_workers if sharded else 1
    (layer, layer_trained), (root, root_trained) = model.layer_parameters, model.root_parameters
    whole = computes_in.itemsize * (root + 2 * layer)
    whole += (computes_in.itemsize + FLOAT32_BYTES) * (root_trained + layer_trained)
    return TuningMemory(
        weights=model.weight_bytes / share,
        gradients=model.gradient_bytes / share,
        moments=model.moment_bytes / share,
        buckets=model.gradient_bytes if num_workers > 1 and not sharded else 0,
        whole_layers=whole if sharded else 0,
        activations=activations,
        optimizer_step=model.gradient_bytes / share if on_gpu else 0,
        whole_llm=saved_bytes,
    )


def scoring_memory(shape: ModelShape, weight_bytes: int, max_tokens_in_flight: int, dtype: torch.dtype) -> float:
    """Bytes of a scorer: weights, hidden states of all tokens in flight, and one step's tokens inside a layer.

    A step takes at most half of the tokens in flight; in a layer it holds the normed states, in float32 too, and the
    queries, keys and values twice (before and after RoPE) with attention's output, or the MLP's three products.
    """
    step = max_tokens_in_flight // 2
    attention = 3 * shape.query_width + 4 * shape.key_width
    inside = 2 * shape.width + max(attention, 3 * shape.mlp_width)
    hidden = max_tokens_in_flight * shape.width * dtype.itemsize
    return weight_bytes + hidden + step * (inside * dtype.itemsize + shape.width * FLOAT32_BYTES)
