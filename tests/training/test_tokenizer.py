import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from transformers import AutoTokenizer

from optirag_core.prompting.tokens import PieceEncoder
from optirag_core.training.tokenizer import MIN_PHRASE_COUNT, train_tokenizer

TITLES = ["The Dark Dune", "Dune The Second", "Children of Dune", "The Children", "A Dark Second Heart"]
TEXTS = [*(f" '{title}" for title in TITLES), *(f" ***{title}***." for title in TITLES), " yes", " no"]
FRAMES = [" ]\n\nTarget user:", " The user read these. And rated them: [", " (8 stars)'", " (10 stars)'", " ]\n2."]
CUE = " You must ONLY answer yes or no.\nAnswer:"
PROMPT = (
    "Hello.\n1. The user read these. And rated them: [ 'The Dark Dune (8 stars)', 'Dune: A *Second* (10 stars)' ]\n2."
    " The user read these. And rated them: [ ]\n\nTarget user: The user read these. And rated them: [ 'A (7 stars)'"
    " ]\n\nQuestion: Like ***Children of Dune***. You must ONLY answer yes or no.\nAnswer:"
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 30, [*FRAMES, CUE] * MIN_PHRASE_COUNT, vocab_size=400)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return PieceEncoder(tokenizer)


@examples(max_examples=300, deadline=None)
@given(text=st.text().filter(lambda text: "'" not in text and "***" not in text))
@example(text="</s> <s> <pad> <unk>")
@example(text="\x00\r\n\t\u2028 日本 🙂")
@example(text=" two  spaces ")
@example(text=".,! ll ** *a")
def test_any_text_comes_back(tokenizer, encoder, text):
    ids = encoder.encode_first(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_a_prompt_comes_back(tokenizer, encoder):
    assert tokenizer.decode(encoder.encode_first(PROMPT)) == PROMPT


def test_the_comma_between_entries_has_no_token(encoder):
    [rating] = encoder.encode(" (8 stars)'")
    assert encoder.encode(" (8 stars)',") == [rating]
    assert len(encoder.encode(" (8 stars)', 'The Dark Dune")) == 5


@pytest.mark.parametrize(
    "phrase",
    [" ]\n\nTarget user:", " ]\n2.", " The user read these.", " And rated them:", " [", " (8 stars)'", " (10 stars)'"],
)
def test_phrases_are_single_tokens(tokenizer, encoder, phrase):
    [token] = encoder.encode(phrase)
    assert tokenizer.decode([token]) == phrase


def test_frames_are_as_many_tokens_as_they_have_phrases(encoder):
    assert len(encoder.encode(FRAMES[1])) == 3
    assert len(encoder.encode(CUE)) == 2


def test_rare_phrases_are_not_learned():
    few, enough = (
        PieceEncoder(train_tokenizer(TITLES * 30, [" Rare words:"] * count, vocab_size=400)).encode(" Rare words:")
        for count in (MIN_PHRASE_COUNT - 1, MIN_PHRASE_COUNT)
    )
    assert len(few) > 1
    assert len(enough) == 1


@pytest.mark.parametrize("word", ["Dune", "The", "Children", "Dark"])
def test_a_word_has_one_token_wherever_it_stands(encoder, word):
    [token] = encoder.encode(f" {word}")
    assert encoder.encode(f" '{word} A")[1] == token
    assert encoder.encode(f" 'A {word} A")[2] == token
    assert encoder.encode(f" ***{word}***.")[1] == token


def test_answers_are_single_tokens_behind_the_cue(tokenizer, encoder):
    answers = encoder.answer_ids(CUE, "yes", "no")
    assert [tokenizer.decode([token]) for token in answers] == [" yes", " no"]


def test_size_and_special_tokens(tokenizer):
    assert len(tokenizer) <= 400 + len(FRAMES) + 4
    assert (tokenizer.pad_token, tokenizer.bos_token) == ("<pad>", "<s>")
    assert len(set(tokenizer.all_special_ids)) == 2


def test_training_again_gives_the_same(tokenizer):
    again = train_tokenizer(TEXTS * 30, [*FRAMES, CUE] * MIN_PHRASE_COUNT, vocab_size=400)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_saved_tokenizer_encodes_the_same(tokenizer, encoder, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = PieceEncoder(AutoTokenizer.from_pretrained(tmp_path))
    assert loaded.bos == encoder.bos
    for text in [*TITLES, *FRAMES, CUE, "</s> <s>", "unseen wörds"]:
        assert loaded.encode(text) == encoder.encode(text)
