"""A small library of books, and prompts in their slow, obvious form."""

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from optirag_core.config.data import PromptSettings
from optirag_core.data.histories import Shown
from optirag_core.data.schema import INTERACTIONS
from optirag_core.prompting.builder import Context
from optirag_core.prompting.template import PromptTemplate
from optirag_core.training.tokenizer import MIN_PHRASE_COUNT, train_tokenizer

FAMILIES = ("books", "books_short", "amazon", "yelp", "generic")
TEXT_FIELDS = {"books": (), "books_short": (), "amazon": (), "yelp": ("city", "state"), "generic": ("genre", "tags")}
"""Per family the item columns, beside the title, whose text a prompt shows."""

SETTINGS = {
    family: PromptSettings(template=family, item_fields=("genre", "tags") if family == "generic" else ())
    for family in FAMILIES
}
READER = {
    "user_id": "u", "location": "USA", "age": 47, "joined": "2016-07-20", "mean_stars": 3.825,
}  # fmt: skip


def item(title: str, **columns: object) -> dict[str, Any]:
    """A row with the columns of every family."""
    common = {"price": 4.5, "city": "Tampa", "state": "FL", "genre": "crime", "tags": ["a", "b"]}
    return {"title": title, **common, **columns}


read_template = cache(PromptTemplate)


def whole_prompt(
    settings: PromptSettings, items: Mapping[str, Mapping[str, Any]], context: Context, candidate: str
) -> str:
    """The text of one prompt, in the order of the paper's tables 6-8."""
    render = read_template(settings).render

    def user(macro: str, row: Mapping[str, Any], history: Sequence[Shown]) -> str:
        titles = [render("item", items[entry.item_id]).strip() for entry in history]
        shown = [f"'{title}{render('rating', entry.rating)}" for title, entry in zip(titles, history, strict=True)]
        return render(macro, row) + (f" {', '.join(shown)} ]" if shown else " ]")

    text = render("instruction") + (render("similar_heading") if context.similar else "")
    for number, (row, history) in enumerate(context.similar, start=1):
        text += render("rank", number) + user("similar_user", row, history)
    text += render("target_heading") + user("target_user", context.user, context.history)
    return text + render("question") + render("candidate", items[candidate]) + render("answer_cue")


def interactions(*rows: tuple) -> pa.Table:
    """Rows of (user, item, rating, split) or, with a time in microseconds, (user, item, rating, split, time)."""
    seen: dict[str, int] = {}
    records = []
    for user, item_id, rating, split, *time in rows:
        position = seen.get(user, 0)
        seen[user] = position + 1
        records.append((user, item_id, rating, int(rating > 3), *(time or [None]), position, split))
    columns = list(zip(*records, strict=True)) or [()] * len(INTERACTIONS)
    return pa.table(dict(zip(INTERACTIONS.names, columns, strict=True)), schema=INTERACTIONS)


PLAIN_TITLES = ("The Dark Dune", "Dune The Second", "Children of Dune", "A Dark Second Heart", "the 10 of (5) and 1984")

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SPLITTERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm2": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
"""How byte-level BPE splits a text first."""

LLAMA_SPACES = {
    "llama": {},
    "llama prepending": {
        "normalizer": normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    },
    **{
        f"llama metaspace {scheme}": {
            "normalizer": None, "pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        }
        for scheme in ("always", "first")
    },
}  # fmt: skip
"""The forms of Llama's tokenizer.json: without a space in front of a text, with one in its older and newer ways."""

KINDS = (*LLAMA_SPACES, *SPLITTERS, "gpt-2 nfkc", "own")


@pytest.fixture(scope="session")
def real_titles(real_data: Callable[[str], Path]) -> list[str]:
    """1,000 titles, spread evenly over the publisher's file."""
    with gzip.open(real_data("bookcrossing") / "BX-Books.csv.gz", "rt", encoding="latin-1", newline="") as file:
        titles = list(dict.fromkeys(row[1] for row in csv.reader(file, delimiter=";", escapechar="\\")))
    return titles[1 :: len(titles) // 1_000][:1_000]


@pytest.fixture(scope="session")
def make_tokenizer(request: pytest.FixtureRequest) -> Callable[..., PreTrainedTokenizerBase]:
    """(kind, family, titles) -> one of Llama's forms, or a tokenizer trained on prompts of these titles."""

    def make(kind: str, family: str, titles: Sequence[str]) -> PreTrainedTokenizerBase:
        return _llama(kind) if kind in LLAMA_SPACES else _trained(kind, family, tuple(titles))

    @cache
    def _llama(kind: str) -> PreTrainedTokenizerFast:
        llama: PreTrainedTokenizerBase = request.getfixturevalue("llama_tokenizer")
        backend = Tokenizer.from_str(llama.backend_tokenizer.to_str())
        for part, value in LLAMA_SPACES[kind].items():
            setattr(backend, part, value)
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")

    @cache
    def _trained(kind: str, family: str, titles: tuple[str, ...]) -> PreTrainedTokenizerFast:
        template = PromptTemplate(SETTINGS[family])
        texts = [piece for title in titles for piece in (template.entry(item(title)), template.candidate(item(title)))]
        frames = [template.opening(similar=True), template.closing("target_heading"), template.closing("question")]
        frames += [template.profile("target_user", READER), template.answer_cue()]
        frames += [template.rating(float(stars), last=True) for stars in range(1, 6)]
        texts += [*frames, *(f"{rating}," for rating in frames[-5:]), " yes", " no"] * MIN_PHRASE_COUNT
        if kind == "own":
            return train_tokenizer(texts, frames * MIN_PHRASE_COUNT, vocab_size=2_000)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFKC() if kind == "gpt-2 nfkc" else None
        tokenizer.pre_tokenizer = SPLITTERS[kind.removesuffix(" nfkc")]
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=2_000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")

    return make
