"""LLMs in GGUF, the one-file format of llama.cpp: dequantised once, from then on ordinary weights.

`transformers` reads the file; the package `gguf` knows its number formats. The model that comes of it refuses to be
saved, as it counts as quantised, so its weights move into a fresh one.
"""

import importlib.util
import struct
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.errors import ModelError

SUFFIX = ".gguf"
DAMAGED = (OSError, ValueError, LookupError, ArithmeticError, RuntimeError, TypeError, struct.error)
"""What reading a GGUF that is cut off or garbled was seen to raise, by the byte that is wrong."""


def is_gguf(path: str | Path) -> bool:
    """Whether the path names a GGUF, there or not."""
    return Path(path).suffix.lower() == SUFFIX


def load_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Dequantise a GGUF.

    Returns:
        The model, and what `transformers` says of missing and mismatched weights.

    Raises:
        ModelError: `gguf` is not installed, or the file is not there, is damaged, or holds no decoder.
    """
    _check(path)
    try:
        _check_header(path)
        quantised, report = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, with their names
            output_loading_info=True,
        )
        config = quantised.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.load_state_dict(quantised.state_dict())
    except DAMAGED as error:
        raise _damaged(path, error) from None
    return model, report


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that a GGUF carries.

    Raises:
        ModelError: as for `load_gguf`.
    """
    _check(path)
    try:
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001, as `tokenizers` raises no class of its own, but this one
        raise _damaged(path, error) from None


def _check(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"cannot load an LLM from {path}: there is no such file")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"cannot load an LLM from {path}: reading GGUF needs the package gguf; run pip install gguf")


def _check_header(path: Path) -> None:
    """Raise where the header claims another size than the tensors have: `transformers` would build it and then look."""
    from gguf import GGUFReader  # optional, and there: `_check` has looked

    reader = GGUFReader(path)
    layers, width = (_claim(reader, name) for name in ("block_count", "embedding_length"))
    if layers > len(reader.tensors):
        raise ValueError(f"its header claims {layers:,} layers, and it holds {len(reader.tensors):,} tensors")
    stored = next((int(tensor.shape[0]) for tensor in reader.tensors if tensor.name == "token_embd.weight"), width)
    if width != stored:
        raise ValueError(f"its header claims a width of {width:,}, and its embeddings have {stored:,}")


def _claim(reader: Any, name: str) -> int:
    claims = [int(field.parts[-1][0]) for key, field in reader.fields.items() if key.endswith(f".{name}")]
    return max(claims, default=0)


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"cannot load an LLM from {path}: it is damaged or no GGUF of a decoder: {reason}")
