"""LLMs on disk: any decoder of `transformers` with `model.layers`, `model.norm` and `lm_head`; no remote code, ever."""

from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from optirag_core.errors import ModelError


def load_llm(
    path: str | Path, *, dtype: Literal["float32", "bfloat16"] = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local folder or by hub name; weights must be safetensors.

    Raises:
        ModelError: there is nothing to load there, it is no decoder of the supported shape, or weights are missing.
    """
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, with their names
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load an LLM from {path}: {first_line}") from None
    parts = [(model.base_model, "layers"), (model.base_model, "norm"), (model, "lm_head")]
    if not all(hasattr(module, name) for module, name in parts):
        raise ModelError(
            f"{path} is a {type(model).__name__}, without model.layers, model.norm and lm_head: use a Llama-like LLM"
        )
    random = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if random:  # transformers fills them with random numbers and goes on
        raise ModelError(
            f"{path} lacks weights of {random[0]} in the shape that its config says ({len(random)} in all)"
        )
    return model.eval(), tokenizer


def context_length(config: PreTrainedConfig) -> int:
    """Tokens of the longest prompt; a sliding window (Mistral 0.1) limits it too, as our attention has none."""
    window = getattr(config, "sliding_window", None)
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


def save_llm(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write safetensors, config and tokenizer for `load_llm`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
