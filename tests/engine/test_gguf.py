"""A GGUF file gives the model that it was written from, or a clear error."""

import pytest
import torch

from optirag_core.engine.loading import load_llm, save_llm
from optirag_core.errors import ModelError
from tests.conftest import tiny_llama

pytest.importorskip("gguf", reason="reading GGUF needs the package gguf: run make smollm2")
from .gguf_files import write_gguf

IDS = torch.tensor([[1, 5, 9, 2, 200]])


@pytest.fixture(scope="module")
def model(byte_tokenizer):
    return tiny_llama(vocab_size=len(byte_tokenizer), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory, model, byte_tokenizer):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, model, byte_tokenizer)
    return path


def refused(path, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_llm(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_the_one_that_was_written(tmp_path, byte_tokenizer, tied):
    model = tiny_llama(vocab_size=len(byte_tokenizer), tie_word_embeddings=tied)
    write_gguf(tmp_path / "tiny.gguf", model, byte_tokenizer)
    loaded, tokenizer = load_llm(tmp_path / "tiny.gguf")
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, atol=1e-5, rtol=0)
    assert loaded.config.tie_word_embeddings == tied
    assert not loaded.training
    for text in ("some yes", " (10 stars)'", "naïve ***day***\n"):
        assert tokenizer.encode(text) == byte_tokenizer.encode(text)
    assert tokenizer.bos_token_id == byte_tokenizer.bos_token_id


def test_saved_it_is_an_ordinary_llm(sound, tmp_path):
    loaded, tokenizer = load_llm(sound)
    save_llm(tmp_path, loaded, tokenizer)
    again, _ = load_llm(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert torch.equal(again(IDS).logits, loaded(IDS).logits)


def test_a_string_will_do_and_the_number_format_can_be_chosen(sound):
    assert load_llm(str(sound), dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load_llm(sound)[0].dtype == torch.float32


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "absent.gguf", "cannot load an LLM from .*: there is no such file")


def test_without_the_package_that_reads_it(sound, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    refused(sound, "reading GGUF needs the package gguf; run pip install gguf")


@pytest.mark.parametrize("keep", [0.0, 1e-5, 0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off(sound, tmp_path, keep):
    path = tmp_path / "cut.gguf"
    content = sound.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, "it is damaged or no GGUF of a decoder")


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("no weights here\n" * 100)
    refused(path, "it is damaged or no GGUF of a decoder")


def test_another_architecture(sound, tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(sound.read_bytes().replace(b"llama", b"lamas"))
    refused(path, "it is damaged or no GGUF of a decoder: .*lamas")


@pytest.mark.parametrize("layers", [100, 2**32 - 1])
def test_a_header_that_claims_more_layers_than_tensors(tmp_path, model, byte_tokenizer, layers):
    """Built before it is refused, the larger one would not end."""
    write_gguf(tmp_path / "deep.gguf", model, byte_tokenizer, layers=layers)
    refused(tmp_path / "deep.gguf", f"its header claims {layers:,} layers, and it holds 38 tensors")


@pytest.mark.parametrize("width", [16, 2**32 - 1])
def test_a_header_that_claims_another_width(tmp_path, model, byte_tokenizer, width):
    write_gguf(tmp_path / "wide.gguf", model, byte_tokenizer, width=width)
    refused(tmp_path / "wide.gguf", f"its header claims a width of {width:,}, and its embeddings have 32")


def test_weights_that_are_missing(tmp_path, model, byte_tokenizer):
    write_gguf(tmp_path / "less.gguf", model, byte_tokenizer, without="blk.1.ffn_up.weight")
    refused(tmp_path / "less.gguf", r"lacks weights of model\.layers\.1\.mlp\.up_proj\.weight .* \(1 in all\)")
    write_gguf(tmp_path / "more.gguf", model, byte_tokenizer, layers=5)
    refused(tmp_path / "more.gguf", r"lacks weights of model\.layers\.4\..* \(9 in all\)")
