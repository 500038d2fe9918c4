"""A tokenizer trained on the prompts' own texts, for LLMs trained from scratch.

Titles are split by byte-level BPE. The sentences that every prompt repeats, and the ratings, become one token each: a
small model then spends its few tokens on what differs between prompts.
"""

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

MAX_PHRASES = 256
MIN_PHRASE_COUNT = 20
"""A token seen less often than this is not learned."""

_NORMALIZED = (("',", "'"), (" '", " ' "), (" ***", " *** "))
"""A word then has one token wherever it stands in a title, and an entry's comma, which says nothing, has none."""
_RESTORED = ((" ' ", " '"), ("' '", "', '"), (" *** ", " ***"))
"""Decoding undoes it in every prompt: no title has a ' or more than one *."""

_SENTENCE = re.compile(r"[^.:\[]*[.:\[]*")


def train_tokenizer(texts: Iterable[str], frames: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer; every string can be encoded, bytes are the fallback.

    Args:
        texts: what BPE learns from (entries, candidates, answers), as often as it occurs.
        frames: the pieces around them (instruction, profiles, ratings), as often as they occur.
        vocab_size: BPE tokens; up to `MAX_PHRASES` phrases come on top.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(*pair) for pair in _NORMALIZED])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *(decoders.Replace(*pair) for pair in _RESTORED)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=True) for phrase in _phrases(frames)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>")


def _phrases(frames: Iterable[str]) -> list[str]:
    counts = Counter(sentence for frame in frames for sentence in _SENTENCE.findall(frame) if len(sentence) > 1)
    return [phrase for phrase, count in counts.most_common(MAX_PHRASES) if count >= MIN_PHRASE_COUNT]
