"""Text -> token ids, and the ids of the two answer words as they really follow a prompt."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from optirag_core.errors import PromptError


class AnswerIds(NamedTuple):
    """Vocabulary ids of the answer tokens (paper section 3: only these two logits count)."""

    yes: int
    no: int


ANCHOR = "x"
"""Stands in front of a piece while it is encoded: Llama's tokenizer begins each text with a space of its own."""

SAMPLE = "One of the best \"books\", in 'it': [ 'A (10)', '7th b (4.5)' ]\n\n2. On a ***Day***. As is\nEnd:"
"""Split at each space it must encode as it does in one; no sentence of a template, as those can be single tokens."""


class PieceEncoder:
    """Encodes the pieces of a prompt one by one; the concatenation of their ids is that of the whole prompt.

    Every piece but the first starts with one space, none ends with whitespace (`template`). Special tokens written in
    a title (`</s>`) are encoded as ordinary text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """
        Raises:
            PromptError: not a fast tokenizer, or one whose tokens reach across the spaces between words.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PromptError(f"{type(tokenizer).__name__} is no fast tokenizer: convert it to tokenizer.json first")
        backend.encode_special_tokens = True
        self._backend = backend
        self.longest_piece = max(map(len, backend.get_vocab(with_added_tokens=True)))
        """No token stands for more characters than this, unless it is the one for unknown text."""
        self.bos: list[int] = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._anchor_length = len(self.encode_first(ANCHOR))
        self._check_joints(tokenizer)

    def encode_first(self, text: str) -> list[int]:
        """Token ids of the piece that a prompt begins with, or of a whole prompt, without special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece as it stands behind another one."""
        return self.encode_first(ANCHOR + text)[self._anchor_length :]

    def _check_joints(self, tokenizer: PreTrainedTokenizerBase) -> None:
        first, *words = SAMPLE.split(" ")
        whole, pieces = self.encode_first(SAMPLE), self.encode_first(first)
        for word in words:
            pieces += self.encode(f" {word}")
        if pieces != whole:
            came, expected = (" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (whole, pieces))
            raise PromptError(
                f"{type(tokenizer).__name__} has tokens across the spaces between words: {came}, expected {expected}; "
                "use an LLM whose tokenizer splits text at spaces"
            )

    def answer_ids(self, cue: str, yes: str, no: str) -> AnswerIds:
        """Ids of the answer words behind `cue`, the end of every prompt.

        Raises:
            PromptError: a word is not exactly one token there, or both are the same token.
        """
        first, second = (self._continuation(cue, word) for word in (yes, no))
        if first == second:
            raise PromptError(f"answer words {yes!r} and {no!r} are the same token {first}: choose others")
        return AnswerIds(yes=first, no=second)

    def _continuation(self, cue: str, word: str) -> int:
        prompt, whole = self.encode(cue), self.encode(f"{cue} {word}")
        added: Sequence[int] = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt or len(added) != 1:
            raise PromptError(
                f"answer word {word!r} is {len(added)} tokens {list(added)} behind the prompt, expected 1: "
                "set prompt.answer_yes / prompt.answer_no to words that are single tokens of this LLM"
            )
        return added[0]
