import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from optirag_core.errors import PromptError
from optirag_core.prompting.template import PromptTemplate
from optirag_core.prompting.tokens import PieceEncoder

from .conftest import FAMILIES, KINDS, LLAMA_SPACES, PLAIN_TITLES, SETTINGS

CUE = " Say yes or no.\nAnswer:"
SPECIAL_TEXTS = ["</s>", "<s>", "<unk>", "a</s>b", "<s><s>", " </s> "]


def test_a_piece_has_no_special_tokens(byte_tokenizer):
    encoder = PieceEncoder(byte_tokenizer)
    assert encoder.bos == [byte_tokenizer.bos_token_id]
    assert len(encoder.encode("abc")) == 3
    assert encoder.encode("") == []


@pytest.mark.parametrize("kind", LLAMA_SPACES)
def test_llama_puts_its_own_space_in_front_of_the_first_piece_alone(make_tokenizer, kind):
    encoder = PieceEncoder(tokenizer := make_tokenizer(kind, "books", PLAIN_TITLES))
    first = tokenizer.convert_ids_to_tokens(encoder.encode_first("Dune"))
    assert first == (["D", "une"] if kind == "llama" else ["\u2581D", "une"])
    assert tokenizer.convert_ids_to_tokens(encoder.encode(" 'A")) == ["\u2581'", "A"]


@pytest.mark.parametrize("kind", KINDS)
@examples(max_examples=50, deadline=None)
@given(words=st.lists(st.from_regex(r"[^\s\u2581]+", fullmatch=True), min_size=1))
@example(words=["'t", "the", "\u0301", "1", "\u00a0a", "***.", "]", "\u0130", "</s>", "\ufb01"])
def test_words_have_the_ids_of_their_whole_text(make_tokenizer, kind, words):
    encoder = PieceEncoder(make_tokenizer(kind, "books", PLAIN_TITLES))
    ids = encoder.encode_first(words[0])
    for word in words[1:]:
        ids += encoder.encode(f" {word}")
    assert ids == encoder.encode_first(" ".join(words))


def test_a_tokenizer_with_tokens_across_words_is_refused():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["one of the", "out of the"], trainer)
    with pytest.raises(PromptError, match=r"has tokens across the spaces .*Ġof.*; use an LLM whose tokenizer splits"):
        PieceEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_without_a_first_token_there_is_none(byte_tokenizer):
    byte_tokenizer = byte_tokenizer.__class__(tokenizer_object=byte_tokenizer.backend_tokenizer)
    assert PieceEncoder(byte_tokenizer).bos == []


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
def test_special_tokens_in_a_text_are_ordinary_text(byte_tokenizer, text):
    ids = PieceEncoder(byte_tokenizer).encode(text)
    assert not set(ids) & set(byte_tokenizer.all_special_ids)
    assert byte_tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
def test_special_tokens_in_a_text_are_ordinary_text_for_llama(llama_tokenizer, text):
    assert not set(PieceEncoder(llama_tokenizer).encode(text)) & set(llama_tokenizer.all_special_ids)


@examples(max_examples=100, deadline=None)
@given(text=st.text())
def test_llama_encodes_any_text_without_special_tokens(llama_tokenizer, text):
    assert not set(PieceEncoder(llama_tokenizer).encode(text)) & set(llama_tokenizer.all_special_ids)


def test_answer_words_as_they_follow_the_cue(byte_tokenizer):
    answers = PieceEncoder(byte_tokenizer).answer_ids(CUE, "yes", "no")
    assert byte_tokenizer.convert_ids_to_tokens([answers.yes, answers.no]) == ["Ġyes", "Ġno"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_words_of_llama(llama_tokenizer, family):
    cue = PromptTemplate(SETTINGS[family]).answer_cue()
    encoder = PieceEncoder(llama_tokenizer)
    assert encoder.answer_ids(cue, "yes", "no") == (4874, 694)
    assert encoder.answer_ids(cue, "Yes", "No") == (3869, 1939)


@pytest.mark.parametrize(("yes", "no", "word", "number"), [("yes", "never", "never", 6), ("ja", "no", "ja", 3)])
def test_an_answer_of_several_tokens_is_refused(byte_tokenizer, yes, no, word, number):
    with pytest.raises(
        PromptError, match=rf"answer word '{word}' is {number} tokens .*, expected 1: set prompt\.answer"
    ):
        PieceEncoder(byte_tokenizer).answer_ids(CUE, yes, no)


def test_an_answer_of_several_tokens_is_refused_for_llama(llama_tokenizer):
    with pytest.raises(PromptError, match=r"'nope' is 2 tokens \[\d+, \d+\] behind the prompt, expected 1"):
        PieceEncoder(llama_tokenizer).answer_ids(CUE, "yes", "nope")


def test_equal_answers_are_refused(byte_tokenizer):
    with pytest.raises(PromptError, match=r"'no' and 'no' are the same token \d+: choose others"):
        PieceEncoder(byte_tokenizer).answer_ids(CUE, "no", "no")


def test_a_tokenizer_without_a_fast_form_is_refused():
    with pytest.raises(PromptError, match=r"ByT5Tokenizer is no fast tokenizer: convert it to tokenizer\.json"):
        PieceEncoder(ByT5Tokenizer())
