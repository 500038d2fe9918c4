"""The LLM that is planned for, and the ways to tune it: real modules on the meta device, without weights.

Parameters, gradients and the optimisers' moments are counted on these modules, not by a formula.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from optirag_core.config.llm import TuningSettings
from optirag_core.config.settings import Settings
from optirag_core.training.llm import optimizers_of, scratch_config
from optirag_core.training.lora import with_lora
from optirag_core.training.pretrained import config_at_hand

Way = Literal["lora", "full"]

VICUNA_7B = LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, max_position_embeddings=4096, tie_word_embeddings=False,
)  # fmt: skip
"""lmsys/vicuna-7b-v1.5, which is Llama-2-7B's shape."""


@dataclass(frozen=True)
class TunedModel:
    """A way to tune an LLM; sizes are of one copy of it, whole."""

    num_parameters: int
    num_trained: int
    weight_bytes: int
    gradient_bytes: int
    moment_bytes: int
    layer_parameters: tuple[int, int]  # of the largest layer, and those of them that learn
    root_parameters: tuple[int, int]  # outside of the layers: embeddings, final norm, LM head


def planned_config(settings: Settings) -> tuple[PreTrainedConfig, str]:
    """The LLM's config, and a line that says whose it is.

    Raises:
        ModelError: there are files at `llm.pretrained.path`, and they hold no config.
    """
    if settings.llm.init == "scratch":
        shape = settings.llm.scratch.shape
        config = scratch_config(shape, vocab_size=shape.vocab_size, max_tokens=settings.prompt.max_tokens)
        return config, "the shape of llm.scratch.shape"
    path = settings.llm.pretrained.place
    if config := config_at_hand(path):
        return config, f"the shape of {path}"
    return VICUNA_7B, f"Vicuna-7B's shape (lmsys/vicuna-7b-v1.5), as {path} is not at hand"


def weights_dtype(settings: Settings, way: Way) -> torch.dtype:
    """Of the weights in a worker's memory while they are tuned: those that learn are float32 (`ray_jobs.tune_llm`)."""
    if settings.llm.init == "scratch" or way == "full":
        return torch.float32
    return getattr(torch, settings.llm.pretrained.dtype)


def computes_in(settings: Settings) -> torch.dtype:
    """What the layers compute in."""
    return torch.float32 if settings.llm.init == "scratch" else getattr(torch, settings.llm.pretrained.dtype)


def meta_model(config: PreTrainedConfig, settings: Settings, way: Way, dtype: torch.dtype) -> PreTrainedModel:
    """The LLM, with adapters where it is tuned by LoRA, on the meta device."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if way == "lora":
            with_lora(model, settings.llm.pretrained.lora, seed=settings.seed)
    return model


def tuned_model(config: PreTrainedConfig, settings: Settings, way: Way) -> TunedModel:
    """Count an LLM that is tuned.

    Raises:
        ModelError: it has no layers of the names that `llm.pretrained.lora.modules` gives.
    """
    model = meta_model(config, settings, way, weights_dtype(settings, way))
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    layers = [list(layer.parameters()) for layer in model.model.layers]
    largest = max(layers, key=_count)
    all_of_layers = [parameter for layer in layers for parameter in layer]
    return TunedModel(
        num_parameters=_count(parameters),
        num_trained=_count(trained),
        weight_bytes=_bytes(parameters),
        gradient_bytes=_bytes(trained),
        moment_bytes=_moment_bytes(model, settings.llm.chosen),
        layer_parameters=(_count(largest), _count(p for p in largest if p.requires_grad)),
        root_parameters=(
            _count(parameters) - _count(all_of_layers),
            _count(trained) - _count(p for p in all_of_layers if p.requires_grad),
        ),
    )


def num_parameters(config: PreTrainedConfig) -> int:
    """Of the LLM as it is scored with."""
    with torch.device("meta"):
        return _count(AutoModelForCausalLM.from_config(config).parameters())


def _moment_bytes(model: PreTrainedModel, settings: TuningSettings) -> int:
    """What the optimisers keep, after one step without numbers."""
    optimizers = optimizers_of(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    for optimizer in optimizers:
        optimizer.step()
    states = (state for optimizer in optimizers for state in optimizer.state.values())
    return _bytes(value for state in states for value in state.values() if value.is_meta)


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
