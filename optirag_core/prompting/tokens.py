"""Text -> token ids, and the ids of the two answer words as they really follow a prompt."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from optirag_core.errors import PromptError


class AnswerIds(NamedTuple):
    """Vocabulary ids of the answer tokens (paper section 3: only these two logits count)."""

    yes: int
    no: int


class PieceEncoder:
    """Encodes the pieces of a prompt one by one; the concatenation of their ids is the prompt.

    Special tokens written in a title (`</s>`) are encoded as ordinary text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PromptError(f"{type(tokenizer).__name__} is no fast tokenizer: convert it to tokenizer.json first")
        backend.encode_special_tokens = True
        self._backend = backend
        self.longest_piece = max(map(len, backend.get_vocab(with_added_tokens=True)))
        """No token stands for more characters than this, unless it is the one for unknown text."""
        self.bos: list[int] = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def encode(self, text: str) -> list[int]:
        """Token ids of one piece, without special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

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
