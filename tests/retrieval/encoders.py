"""Tiny random encoders, and texts of made-up items."""

import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from optirag_core.config.data import PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.prompting.template import PromptTemplate
from optirag_core.retrieval.text import TextEncoder
from tests.conftest import tiny_llama, tokenizer_of_bytes

VOCABULARY = 300
"""More than the tokens of `tokenizer_of_bytes`."""


def tiny_bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    return BertModel(config).eval()


def tiny_model(kind: str) -> PreTrainedModel:
    return tiny_bert() if kind == "bert" else tiny_llama(vocab_size=VOCABULARY).model


def tiny_encoder(kind: str, *, max_tokens: int = 48, batch_tokens: int = 120) -> TextEncoder:
    return TextEncoder(tiny_model(kind), tokenizer_of_bytes(), max_tokens=max_tokens, batch_tokens=batch_tokens)


def node_texts(interactions: pa.Table, *, template: str = "books", limit: int = 48) -> NodeTexts:
    """Of items whose titles are made of their ids."""
    items = {item_id: {"title": f"Title {item_id}"} for item_id in pc.unique(interactions["item_id"]).to_pylist()}
    return NodeTexts(
        PromptTemplate(PromptSettings(template=template)), Histories.of(interactions), items, limit=limit
    )  # fmt: skip
