"""A tokenizer trained on the prompts' own texts, for LLMs trained from scratch.

Titles are split by byte-level BPE. The sentences that every prompt repeats, and the ratings, become one token each: a
small model then spends its few tokens on what differs between prompts.
"""

import re
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from optirag_core.config.data import PromptSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.evidence.words import ALL_WORDS
from optirag_core.prompting.template import PromptTemplate

MAX_RANK = 10
"""Ranks of similar users that the tokenizer knows as one token."""

MAX_PHRASES = 256
MIN_PHRASE_COUNT = 20
"""A token seen less often than this is not learned."""

_NORMALIZED = (("',", "'"), (" '", " ' "), (" ***", " *** "))
"""A word then has one token wherever it stands in a title, and an entry's comma, which says nothing, has none."""
_RESTORED = ((" ' ", " '"), ("' '", "', '"), (" *** ", " ***"))
"""Decoding undoes it in every prompt: no title has a ' or more than one *."""

_SENTENCE = re.compile(r"[^.:\[]*[.:\[]*")


def scratch_tokenizer(
    settings: PromptSettings, dataset: Dataset, vocab_size: int, *, evidence: bool = False
) -> PreTrainedTokenizerBase:
    """Train a tokenizer on the pieces of prompts, about as often as they occur in training.

    Args:
        evidence: prompts say what others thought of a candidate: each such sentence becomes a token.
    """
    template = PromptTemplate(settings, evidence=evidence)
    items, users = Rows.of(dataset.items, "item"), Rows.of(dataset.users, "user")
    histories = Histories.of(dataset.interactions)
    train = dataset.interactions.filter(pc.is_in(dataset.interactions["split"], pa.array(["train", "tune"])))
    texts, frames = [], []
    for item_id, count in Counter(train["item_id"].to_pylist()).items():
        texts += [template.entry(items[item_id]), template.candidate(items[item_id])] * count
    for rating, count in Counter(train["rating"].to_pylist()).items():
        frames += [template.rating(rating, last=True)] * count
    fixed = [template.opening(similar=similar) for similar in (True, False)]
    fixed += [template.closing("rank", number) for number in range(2, MAX_RANK)]
    fixed += [template.closing("target_heading"), template.closing("question"), template.answer_cue()]
    if evidence:
        frames += [template.candidate_evidence(words) for words in ALL_WORDS] * MIN_PHRASE_COUNT
    for user_id in pc.unique(train["user_id"]).to_pylist():
        mean = histories.mean_of_target(histories.past(user_id))
        profile = {**(users.get(user_id) or users.blank(user_id)), "mean_stars": mean}
        frames += [template.profile(macro, profile) for macro in ("similar_user", "target_user")]
        frames += fixed
        texts += [f" {settings.answer_yes}", f" {settings.answer_no}"]
    return train_tokenizer(texts, frames, vocab_size)


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
