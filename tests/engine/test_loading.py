import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from optirag_core.engine.loading import load_answer_ids, load_llm, save_answer_ids, save_llm
from optirag_core.errors import ArtifactMismatch, ModelError
from tests.conftest import tiny_llama

WEIGHTS = "model.safetensors"
IDS = torch.tensor([[1, 5, 9, 2]])


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    """A sound LLM."""
    save_llm(tmp_path, tiny_llama(), byte_tokenizer)
    return tmp_path


def refused(path, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_llm(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip(tmp_path, byte_tokenizer, tied):
    model = tiny_llama(tie_word_embeddings=tied)
    save_llm(tmp_path, model, byte_tokenizer)
    loaded, tokenizer = load_llm(tmp_path)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    assert tokenizer.encode("some yes") == byte_tokenizer.encode("some yes")
    assert tokenizer.bos_token_id == byte_tokenizer.bos_token_id
    assert (tmp_path / WEIGHTS).is_file()


def test_a_string_will_do_and_the_number_format_can_be_chosen(folder):
    assert load_llm(str(folder), dtype="bfloat16")[0].dtype == torch.bfloat16


def test_any_decoder_with_the_same_parts_loads(tmp_path, byte_tokenizer):
    config = MistralConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    save_llm(tmp_path, MistralForCausalLM(config), byte_tokenizer)
    assert len(load_llm(tmp_path)[0].model.layers) == 2


def test_nothing_there(tmp_path):
    refused(tmp_path / "absent", "cannot load an LLM from")
    refused(tmp_path, "cannot load an LLM from")


def test_no_tokenizer_there(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    refused(tmp_path, "cannot load an LLM from")


def bert():
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertLMHeadModel(BertConfig(vocab_size=40, **small))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16))


def t5():
    return T5ForConditionalGeneration(T5Config(vocab_size=40, d_model=16, d_ff=16, d_kv=8, num_layers=2, num_heads=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bert, r"is a BertLMHeadModel, without model\.layers, model\.norm and lm_head: use a Llama-like LLM"),
        (gpt2, "is a GPT2LMHeadModel, without"),
        (t5, "cannot load an LLM from .*T5Config"),
    ],
)
def test_other_architectures_are_refused(tmp_path, byte_tokenizer, make, message):
    save_llm(tmp_path, make(), byte_tokenizer)
    refused(tmp_path, message)


class Trap:
    """Whoever unpickles this writes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (str(self._path), "w")


def test_pickled_weights_are_refused_and_never_read(folder):
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, "cannot load an LLM from")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "sprung")))
    refused(folder, "cannot load an LLM from")
    assert not (folder / "sprung").exists()


def test_code_in_the_folder_is_refused_and_never_run(folder):
    (folder / "own.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "cannot load an LLM from")
    assert not (folder / "sprung").exists()


def test_missing_weights_are_refused(folder):
    change_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, r"lacks weights of model\.layers\.1\.mlp\.up_proj\.weight .* \(1 in all\)")


def test_weights_of_another_shape_are_refused(folder):
    change_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(8)}))
    refused(folder, r"lacks weights of model\.norm\.weight in the shape that its config says")


@pytest.mark.parametrize("size", [0, 7, 1_000])
def test_truncated_weights_are_refused(folder, size):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])
    refused(folder, "cannot load an LLM from")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "llama", "hidden_size": "wide"}'])
def test_a_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "cannot load an LLM from")


def test_the_answer_words_ids_lie_beside_the_llm(tmp_path):
    save_answer_ids(tmp_path, (4874, 694))
    assert load_answer_ids(tmp_path) == (4874, 694)


@pytest.mark.parametrize("text", [None, "", "[]", '{"yes": 3}', "\x00"])
def test_an_llm_that_does_not_tell_its_answer_words_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "answers.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        ArtifactMismatch, match=r"answers\.json does not tell the ids of yes and no: run tune_llm again"
    ):
        load_answer_ids(tmp_path)
