"""What a pretrained LLM is does not depend on where it lies."""

import shutil

import pytest

from optirag_core.errors import ArtifactMismatch, ModelError
from optirag_core.training.pretrained import pretrained_place, verified_place, weights_digest
from tests.conftest import tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("llm")
    tiny_llama(vocab_size=len(byte_tokenizer)).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


def test_the_digest_is_that_of_the_files_wherever_they_lie(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "elsewhere")

    assert weights_digest(copied) == weights_digest(folder)
    (copied / "README.md").write_text("not read by the loader", encoding="utf-8")
    assert weights_digest(copied) == weights_digest(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_digest_changes_with_weights_config_and_tokenizer(folder, tmp_path, name):
    copied = shutil.copytree(folder, tmp_path / "changed")
    data = bytearray((copied / name).read_bytes())
    data[-2] ^= 1
    (copied / name).write_bytes(data)

    assert weights_digest(copied) != weights_digest(folder)


def test_a_folder_is_its_own_place(folder):
    assert pretrained_place(str(folder)) == folder


def test_a_folder_without_an_llm_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        weights_digest(tmp_path)


@pytest.mark.parametrize("path", ["/no/such/folder", "no/such/hub/name", "nobody/nothing"])
def test_what_is_neither_a_folder_nor_on_the_hub_is_named(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match=f"cannot load an LLM from {path}: it is no folder here"):
        pretrained_place(path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Folder of an installed package that cannot be imported and carries weights.gguf and a folder model."""
    folder = tmp_path / "site" / "carrier"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('needs llama.cpp')", encoding="utf-8")
    (folder / "weights.gguf").write_bytes(b"GGUF")
    (folder / "model").mkdir()
    monkeypatch.syspath_prepend(folder.parent)
    return folder


@pytest.mark.parametrize("name", ["weights.gguf", "model"])
def test_a_file_or_folder_of_a_package_is_found_without_importing_it(package, name):
    assert pretrained_place(f"package://carrier/{name}") == package / name


def test_a_worker_that_finds_other_files_is_refused(package):
    path = "package://carrier/weights.gguf"
    digest = weights_digest(package / "weights.gguf")
    assert verified_place(path, digest) == package / "weights.gguf"
    with pytest.raises(
        ArtifactMismatch, match=rf"{path} is another model \({digest[:12]}\) .* give some\.setting a place"
    ):
        verified_place(path, "0" * 64, setting="some.setting")


def test_the_message_names_the_setting_that_gave_the_path():
    with pytest.raises(ModelError, match=r"there is no such file; set retriever\.text\.encoder to one"):
        pretrained_place("no/such.gguf", setting="retriever.text.encoder")


def test_a_gguf_file_is_its_own_place_and_its_digest_is_that_of_the_file(package, tmp_path):
    file = package / "weights.gguf"
    assert pretrained_place(str(file)) == file
    moved = shutil.copy(file, tmp_path / "weights.gguf")
    assert weights_digest(moved) == weights_digest(file)
    file.write_bytes(b"GGUf")
    assert weights_digest(moved) != weights_digest(file)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("package://no_such_package/a.gguf", "the package no_such_package is not installed; run make smollm2"),
        ("package://carrier/other.gguf", "carrier holds no folder or GGUF other.gguf"),
        ("package://carrier/__init__.py", "carrier holds no folder or GGUF __init__.py"),
        ("package://carrier", "expected package://PACKAGE/FILE.gguf"),
        ("package://carrier/../carrier/weights.gguf", "expected package://PACKAGE/FILE.gguf"),
        ("package://car.rier/weights.gguf", "expected package://PACKAGE/FILE.gguf"),
        ("no/such/file.gguf", "there is no such file"),
    ],
)
def test_a_gguf_that_is_not_there_is_named(package, path, message):
    with pytest.raises(ModelError, match=f"cannot load an LLM from {path}: .*{message}"):
        pretrained_place(path)
