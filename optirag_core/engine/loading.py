"""LLMs on disk: any decoder of `transformers` with `model.layers`, `model.norm` and `lm_head`; no remote code, ever.

Encoders, too: of a decoder all but its head, or a model such as BERT.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from optirag_core.engine.gguf import is_gguf, load_gguf, load_gguf_tokenizer
from optirag_core.errors import ArtifactMismatch, ConfigError, ModelError

ANSWERS_FILE = "answers.json"


def load_llm(
    path: str | Path, *, dtype: Literal["float32", "bfloat16"] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local folder, whose weights must be safetensors, or from a GGUF file.

    Args:
        dtype: of the weights in memory; None: as they were saved, float32 for a GGUF.

    Raises:
        ModelError: there is nothing to load there, it is no decoder of the supported shape, or weights are missing.
    """
    if is_gguf(path):
        model, report = load_gguf(Path(path), getattr(torch, dtype or "float32"))
    else:
        model, report = _load_safetensors(path, AutoModelForCausalLM, getattr(torch, dtype) if dtype else "auto")
    tokenizer = load_tokenizer(path)
    parts = [(model.base_model, "layers"), (model.base_model, "norm"), (model, "lm_head")]
    if not all(hasattr(module, name) for module, name in parts):
        raise ModelError(
            f"{path} is a {type(model).__name__}, without model.layers, model.norm and lm_head: use a Llama-like LLM"
        )
    _require_whole(path, report)
    return model.eval(), tokenizer


def load_encoder(
    path: str | Path, *, dtype: Literal["float32", "bfloat16"]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what turns tokens into hidden states, and its tokenizer; from the places of `load_llm`.

    Args:
        dtype: of the weights in memory.

    Raises:
        ModelError: there is nothing to load there, it does not read one text, or weights are missing.
    """
    if is_gguf(path):
        llm, report = load_gguf(Path(path), getattr(torch, dtype))
        model = llm.base_model
    else:
        model, report = _load_safetensors(path, AutoModel, getattr(torch, dtype))
    tokenizer = load_tokenizer(path)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a BERT without its files
        raise ModelError(f"cannot load an LLM from {path}: its tokenizer: it has no vocabulary")
    config = model.config
    if config.is_encoder_decoder or model.get_input_embeddings() is None or not hasattr(config, "hidden_size"):
        raise ModelError(f"{path} is a {type(model).__name__}, which does not read one text: use a BERT or a Llama")
    _require_whole(path, report, without="pooler.")  # of BERT, a layer behind the hidden states
    config.use_cache = False  # a decoder would keep every layer's keys and values
    return model.eval(), tokenizer


def _require_whole(path: str | Path, report: Mapping[str, Any], *, without: str | None = None) -> None:
    random = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    lacking = sorted(key for key in random if without is None or not key.startswith(without))
    if lacking:  # transformers fills them with random numbers and goes on
        raise ModelError(
            f"{path} lacks weights of {lacking[0]} in the shape that its config says ({len(lacking)} in all)"
        )


def _load_safetensors(
    path: str | Path, loader: type[AutoModel | AutoModelForCausalLM], dtype: torch.dtype | str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        return loader.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, with their names
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load an LLM from {path}: {first_line}") from None


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """
    Raises:
        ModelError: there is none.
    """
    if is_gguf(path):
        return load_gguf_tokenizer(Path(path))
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load an LLM from {path}: its tokenizer: {first_line}") from None


def context_length(config: PreTrainedConfig) -> int:
    """Tokens of the longest prompt; a sliding window (Mistral 0.1) limits it too, as our attention has none."""
    window = getattr(config, "sliding_window", None)
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


def check_context(max_tokens: int, config: PreTrainedConfig) -> None:
    """
    Raises:
        ConfigError: prompts of this length are longer than the LLM reads.
    """
    if max_tokens > (longest := context_length(config)):
        raise ConfigError(
            f"prompt.max_tokens {max_tokens} exceeds the LLM's context of {longest} tokens: lower it, or use "
            "an LLM with a longer context"
        )


def save_llm(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write safetensors, config and tokenizer for `load_llm`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_answer_ids(folder: Path, answer_ids: tuple[int, int]) -> None:
    """Write the vocabulary ids of yes and no beside the LLM that was tuned on them."""
    yes, no = answer_ids
    (folder / ANSWERS_FILE).write_text(json.dumps({"yes": yes, "no": no}), encoding="utf-8")


def load_answer_ids(folder: Path) -> tuple[int, int]:
    """Vocabulary ids of yes and no that the LLM was tuned on.

    Raises:
        ArtifactMismatch: the folder does not tell.
    """
    try:
        ids = json.loads((folder / ANSWERS_FILE).read_text(encoding="utf-8"))
        return ids["yes"], ids["no"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtifactMismatch(
            f"{folder / ANSWERS_FILE} does not tell the ids of yes and no: run tune_llm again"
        ) from None
