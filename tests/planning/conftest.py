"""A Llama of 2 layers whose numbers can be computed by hand, and settings that tune it."""

from pathlib import Path

import pytest
from transformers import LlamaConfig

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from

#  embeddings 40*8 = 320, tied; a layer 4*8*8 + 3*8*16 + 2*8 = 656; final norm 8: 320 + 2*656 + 8 = 1640
SMALL = LlamaConfig(
    vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip


@pytest.fixture(scope="session")
def small_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of an LLM and no weights."""
    folder = tmp_path_factory.mktemp("llm")
    SMALL.save_pretrained(folder)
    return folder


def pretrained(path: object, workspace: object, **sections: dict) -> Settings:
    """Settings that tune the LLM at a path by a LoRA of rank 2 on queries and values."""
    lora = {"rank": 2, "dropout": 0.0, "modules": ["q_proj", "v_proj"]}
    llm = {"path": str(path), "lora": lora, "history_loss_weight": 0.5, "batch_tokens": 64} | sections.pop("llm", {})
    raw = {"workspace": str(workspace), "llm": {"init": "pretrained", "pretrained": llm}, "prompt": {"max_tokens": 32}}
    return settings_from(raw | sections)
