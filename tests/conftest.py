"""What tests of several packages share: the publishers' real files, small real tokenizers and models, an S3 server."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.hardware import commit, hardware
from tests.storage.server import s3_server

pytest_plugins = ["tests.finished_run"]

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", type=Path, help="write what the tests of faults counted into this JSON file")
    parser.addoption("--thorough", action="store_true", help="run the tests that take minutes as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests out that take minutes, unless they are asked for."""
    if config.getoption("--thorough") or config.getoption("--reliability"):
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def reliability(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, Any]]]:
    """What the tests of faults count: name of a fault -> tried, lost, duplicated, hung and more."""
    figures: dict[str, dict[str, Any]] = {}
    yield figures
    if file := request.config.getoption("--reliability"):
        described = {"command": "pytest --reliability FILE", "date": time.strftime("%Y-%m-%d")}
        described |= {"hardware": hardware("cpu"), "commit": commit(), "faults": dict(sorted(figures.items()))}
        file.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """On tensors this small a second thread costs more than it does: 25 times the time on two busy cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real files; skips the test where there is none."""
    root = Path(os.environ.get("OPTIRAG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is no folder, set OPTIRAG_DATA to the one that holds bookcrossing/ and more")
    return root


@pytest.fixture(scope="session")
def real_data(shared_data: Path) -> Callable[[str], Path]:
    """Folder of one publisher's real files; skips the test where they are absent."""

    def folder(name: str) -> Path:
        path = shared_data / name
        if not path.is_dir():
            pytest.skip(f"no real data: set OPTIRAG_DATA to a folder that holds {name}/")
        return path

    return folder


@pytest.fixture(scope="session")
def llama_tokenizer(real_data: Callable[[str], Path]) -> PreTrainedTokenizerBase:
    """The tokenizer of Llama and Vicuna."""
    return AutoTokenizer.from_pretrained(real_data("llama-tokenizer"))


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of_bytes()


def tokenizer_of_bytes() -> PreTrainedTokenizerFast:
    """One token per byte, " yes" and " no" aside: decoding gives exactly the text that was encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" yes", " no"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the session's S3 server. boto3 finds it and its credentials in the environment, as do child processes."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as environment, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment["AWS_ENDPOINT_URL"]


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of `request.param` bytes; skips the test where mounting is not permitted, but no full count."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode and request.config.getoption("--reliability"):
        pytest.fail(f"the full count needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    if mounted.returncode:
        pytest.skip(f"no small disk: mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def s3_bucket(s3_endpoint: str) -> str:
    """`s3://` URI of a fresh, empty bucket."""
    name = f"test-{uuid.uuid4().hex}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def tiny_llama(*, seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """A random Llama of 4 layers; weights large enough for predictions to differ between prompts and layers."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()
