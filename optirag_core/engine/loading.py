"""LLMs on disk: any decoder of `transformers` with `model.layers`, `model.norm` and `lm_head`; no remote code, ever."""

from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.errors import ModelError


def load_llm(
    path: str | Path, *, dtype: Literal["float32", "bfloat16"] = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local folder or by hub name; weights must be safetensors.

    Raises:
        ModelError: there is nothing to load there, or it is no decoder of the supported shape.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load an LLM from {path}: {first_line}") from None
    parts = (getattr(model.base_model, "layers", None), getattr(model.base_model, "norm", None), model.lm_head)
    if any(part is None for part in parts):
        raise ModelError(
            f"{path} is a {type(model).__name__}, without model.layers, model.norm and lm_head: use a Llama-like LLM"
        )
    return model.eval(), tokenizer


def save_llm(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write safetensors, config and tokenizer for `load_llm`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
