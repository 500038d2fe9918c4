"""A small assembler with a real index: three users on a circle, items by number."""

import numpy as np
import pyarrow as pa
import torch

from optirag_core.config.data import IndexSettings, PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.model import EvidenceModel, PairEvidence
from optirag_core.prompting.assembly import PromptAssembler
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.index import UserIndex

from .conftest import interactions

SETTINGS = PromptSettings(template="generic", max_tokens=10_000)
PLANTED = "Planted Title"
LONG = "endless " * 2**17
"""1 MB."""
TARGET = [("a", f"i{number}", 4, "train") for number in range(4)]
SIMILAR = [("b", f"i{number}", 2, "train") for number in range(2, 7)]
ANGLES = {"a": 0.0, "b": 0.1, "c": 0.3}
"""Users on a circle: b is most similar to a, then c."""


def index_of(users):
    vectors = torch.tensor([[np.cos(ANGLES[user]), np.sin(ANGLES[user])] for user in users], dtype=torch.float32)
    return UserIndex.build(pa.array(users), vectors, IndexSettings())


def plain_evidence(table, items):
    """Evidence whose features stay as they are."""
    evidence = Evidence.of(table, items, [])
    width = len(evidence.names)
    return PairEvidence(evidence, EvidenceModel(np.zeros(width), np.ones(width), np.zeros(width), 0.0))


def assembler(tokenizer, rows, *, users=("a", "b", "c"), settings=SETTINGS, num_similar_users=2, evidence=None):
    """
    Args:
        evidence: None, or whether the prompt says it.
    """
    table = interactions(*rows)
    ids = sorted({*table["item_id"].to_pylist(), "q0", "q1"})
    titles = [PLANTED if item_id == "planted" else f"Title of {item_id}" for item_id in ids]
    nothing = pa.nulls(len(ids), pa.string())
    columns = {"city": nothing, "state": nothing, "price": nothing, "author": [f"Author of {value}" for value in ids]}
    items = pa.table({"item_id": ids, "title": titles, **columns})
    profiles = pa.table({"user_id": ["a", "b", "c"], "joined": ["2001-01-01", None, "2003-03-03"]})
    profiles = profiles.append_column("location", pa.nulls(3, pa.string())).append_column("age", pa.nulls(3))
    builder = PromptBuilder(settings, tokenizer, Rows.of(items, "item"), evidence=bool(evidence))
    histories, profiles = Histories.of(table), Rows.of(profiles, "user")
    return PromptAssembler(
        histories, profiles, index_of(users), builder, settings, num_similar_users=num_similar_users,
        evidence=None if evidence is None else plain_evidence(table, items),
    )  # fmt: skip


def prefix_text(tokenizer, rows, request, **options):
    [assembled] = assembler(tokenizer, rows, **options).assemble([request])
    return tokenizer.decode(assembled.prompt.group.prefix)


def timed(rows, start=100):
    """The same rows, 100 microseconds apart within each user."""
    counts = {}
    result = []
    for user, *rest in rows:
        counts[user] = counts.get(user, 0) + 1
        result.append((user, *rest, start * counts[user]))
    return result
