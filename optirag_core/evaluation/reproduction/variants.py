"""The systems that the paper compares with its own: what each changes in the settings (section 6, tables 2 to 5, 9)."""

from collections.abc import Mapping
from typing import Any

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from

Changes = Mapping[str, Mapping[str, Any]]
"""Section -> key -> value."""

NONE, TEXT, LAST, WEIGHTED, FM, SMALLER = "none", "text", "last", "weighted", "fm", "smaller"


def changes(settings: Settings, *, text_encoder: str) -> dict[str, Changes]:
    """By name.

    Args:
        text_encoder: of the LLM-retriever.
    """
    encoder = {**settings.retriever.text.model_dump(mode="json"), "encoder": text_encoder}
    return {
        NONE: {"prompt": {"num_similar_users": 0}},
        TEXT: {"retriever": {"method": "text", "text": encoder}},
        LAST: {"retriever": {"method": "gcn", "aggregate": "last"}},
        WEIGHTED: {"retriever": {"method": "gcn", "aggregate": "weighted", "layer_weights": None}},
        FM: {"retriever": {"method": "fm"}},
        SMALLER: _smaller(settings),
    }


def changed(settings: Settings, change: Changes, *, workspace: str | None = None) -> Settings:
    """Settings with other values.

    Raises:
        ConfigError: they do not fit each other.
    """
    raw = settings.model_dump(mode="json")
    for section, values in change.items():
        raw[section] = {**raw[section], **values}
    return settings_from(raw | ({"workspace": workspace} if workspace else {}))


def _smaller(settings: Settings) -> Changes:
    """Table 9's TinyLlama: fewer weights, trained in the same way."""
    reproduce = settings.reproduce
    if reproduce.smaller_llm is not None:
        return {"llm": reproduce.smaller_llm.model_dump(mode="json")}
    llm = settings.llm.model_dump(mode="json")
    if settings.llm.init == "pretrained":
        return {"llm": {**llm, "init": "scratch"}, "exit_heads": {"layers": (3, 4)}, "exit_policy": {"window": 3}}
    shape = settings.llm.scratch.shape
    half = {
        "hidden_size": shape.hidden_size // 2,
        "intermediate_size": shape.intermediate_size // 2,
        "num_heads": max(1, shape.num_heads // 2),
    }
    return {"llm": {**llm, "scratch": {**llm["scratch"], "shape": {**llm["scratch"]["shape"], **half}}}}
