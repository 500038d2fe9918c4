"""A pretrained LLM on this machine, and what it is, wherever it lies."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from optirag_core.errors import ModelError
from optirag_core.manifest import MANIFEST, digest_of, file_sha256

LLM_FILES = ("*.safetensors", "*.json", "*.model", "*.txt")
"""Weights, config and tokenizer: what loading an LLM reads, besides the manifest where it is one of our artifacts."""


def pretrained_folder(path: str) -> Path:
    """The local folder of an LLM: the path itself, or where the hub's files lie on this machine.

    Args:
        path: a folder, or a hub name whose files are fetched unless they are there.

    Raises:
        ModelError: it is neither.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(path, allow_patterns=list(LLM_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"cannot load an LLM from {path}: it is no folder here, and the hub does not give it "
            f"({str(error).strip().splitlines()[0]}); set llm.pretrained.path to a folder or a hub name"
        ) from None


def weights_digest(folder: Path) -> str:
    """sha256 over the names and contents of an LLM's files: what it is, wherever it lies.

    Raises:
        ModelError: the folder has none of them.
    """
    files = sorted({file for pattern in LLM_FILES for file in folder.glob(pattern) if file.name != MANIFEST})
    if not files:
        raise ModelError(f"cannot load an LLM from {folder}: it holds no {', '.join(LLM_FILES)}")
    return digest_of({file.name: file_sha256(file) for file in files})
