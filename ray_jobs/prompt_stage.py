"""The prompt assembler that training, scoring and explaining share, made from the artifacts at hand."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from optirag_core.artifacts import Artifact
from optirag_core.config import PromptSettings, Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.rows import Rows
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import context_length
from optirag_core.errors import ConfigError
from optirag_core.prompting.assembly import PromptAssembler, requests_from
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.prompting.template import PromptTemplate
from optirag_core.retrieval.index import UserIndex
from optirag_core.training.packing import Sample
from optirag_core.training.tokenizer import train_tokenizer

MAX_RANK = 10
"""Ranks of similar users that a tokenizer from scratch knows as one token."""


def prompt_config(settings: Settings) -> dict[str, object]:
    """Every setting that changes a prompt: part of the version of whatever was made from prompts."""
    return {
        "prompt": PromptTemplate(settings.prompt).digest,
        "prompt_settings": settings.prompt.model_dump(mode="json", exclude={"template"}),
        "num_similar_users": settings.retriever.num_similar_users,
    }


def check_context(settings: PromptSettings, llm: PreTrainedConfig) -> None:
    """
    Raises:
        ConfigError: prompts may get longer than the LLM reads.
    """
    if settings.max_tokens > (longest := context_length(llm)):
        raise ConfigError(
            f"prompt.max_tokens {settings.max_tokens} exceeds the LLM's context of {longest} tokens: lower it, or use "
            "an LLM with a longer context"
        )


def open_assembler(
    settings: Settings, dataset: Dataset, retriever: Artifact, tokenizer: PreTrainedTokenizerBase
) -> tuple[PromptAssembler, PromptBuilder]:
    """Histories, similar users and token pieces behind one `assemble`."""
    builder = PromptBuilder(settings.prompt, tokenizer, Rows(dataset.items, "item_id"))
    assembler = PromptAssembler(
        dataset,
        UserIndex.load(retriever.path),
        builder,
        settings.prompt,
        num_similar_users=settings.retriever.num_similar_users,
    )
    return assembler, builder


def labelled_samples(
    assembler: PromptAssembler,
    interactions: pa.Table,
    split: str,
    *,
    similar: bool = True,
    max_users: int | None = None,
) -> list[Sample]:
    """Prompts of a split, with or without similar users, and the answers to their candidates.

    Args:
        max_users: at most this number of users, spread evenly over the table.
    """
    requests = requests_for(interactions, split)
    if max_users and max_users < len(requests):
        requests = requests.take(np.linspace(0, len(requests) - 1, max_users, dtype=np.int64))
    labels: Sequence[Sequence[int]] = requests["labels"].to_pylist()
    items = requests["item_ids"].to_pylist()
    samples = []
    prompts = assembler.assemble(requests_from(requests), similar=similar)
    for result, asked, answers in zip(prompts, items, labels, strict=True):
        if result.prompt is not None:
            answer_of = dict(zip(asked, answers, strict=True))
            known = [answer_of[item_id] for item_id in result.candidates]
            samples.append(Sample(result.prompt.group, known, result.prompt.rating_positions))
    return samples


def scratch_tokenizer(settings: PromptSettings, dataset: Dataset, vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer on the pieces of prompts, about as often as they occur in training."""
    template = PromptTemplate(settings)
    items, users = Rows(dataset.items, "item_id"), Rows(dataset.users, "user_id")
    train = dataset.interactions.filter(pc.is_in(dataset.interactions["split"], pa.array(["train", "tune"])))
    texts, frames = [], []
    for item_id, count in Counter(train["item_id"].to_pylist()).items():
        texts += [template.entry(items[item_id]), template.candidate(items[item_id])] * count
    for rating, count in Counter(train["rating"].to_pylist()).items():
        frames += [template.rating(rating, last=True)] * count
    fixed = [template.opening(similar=similar) for similar in (True, False)]
    fixed += [template.closing("rank", number) for number in range(2, MAX_RANK)]
    fixed += [template.closing("target_heading"), template.closing("question"), template.answer_cue()]
    for user_id in pc.unique(train["user_id"]).to_pylist():
        profile = users.get(user_id) or users.blank(user_id)
        frames += [template.profile(macro, profile) for macro in ("similar_user", "target_user")]
        frames += fixed
        texts += [f" {settings.answer_yes}", f" {settings.answer_no}"]
    return train_tokenizer(texts, frames, vocab_size)
