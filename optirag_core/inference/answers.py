"""Prompts and their pair scores -> rows of `scores` and `rejects`: every pair asked is in one of them, once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import REJECTS, SCORES
from optirag_core.engine.groups import PairScore
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.prompts import ORIGIN


@dataclass(frozen=True)
class Answers:
    """What becomes of some requests."""

    scores: pa.Table  # SCORES
    rejects: pa.Table  # REJECTS
    dropped_entries: int  # history entries that had no room in a prompt
    dropped_users: int  # similar users, likewise


def model_version(artifacts: Artifacts) -> str:
    """What `scores` names as the model: the LLM and its heads."""
    return f"{artifacts['llm'].version}+{artifacts['exit_heads'].version}"


def answer(
    prompts: pa.Table, pair_scores: Sequence[Sequence[PairScore]], *, run_id: str, model_version: str
) -> Answers:
    """Give every asked pair its score or its reject.

    A score that is no number becomes a reject.

    Args:
        prompts: `PROMPTS`.
        pair_scores: one list per row, in the order of its suffixes.
    """
    scores, rejects = [], []
    constants = {"run_id": run_id, "model_version": model_version, "scored_at": datetime.now(UTC)}
    for row, pairs in zip(
        prompts.drop_columns(["prefix", "suffixes", "evidence"]).to_pylist(), pair_scores, strict=True
    ):
        origin = {field.name: row[field.name] for field in ORIGIN}
        shown = {name: row[name] for name in ("user_id", "num_similar_users", "cold_start")}
        rejects += [origin | reject for reject in row["rejects"]]
        for item_id, pair in zip(row["item_ids"], pairs, strict=True):
            if math.isfinite(pair.score):
                scores.append(
                    shown | constants | {"item_id": item_id, "score": pair.score, "exit_layer": pair.exit_layer}
                )
            else:
                reason = f"p(yes) is {pair.score}: the LLM's numbers overflow (engine.dtype) or its weights are broken"
                rejects.append(origin | {"item_id": item_id, "error_code": "score_not_finite", "error": reason})
    return Answers(
        pa.Table.from_pylist(scores, schema=SCORES),
        pa.Table.from_pylist(rejects, schema=REJECTS),
        dropped_entries=pc.sum(prompts["dropped_entries"]).as_py() or 0,
        dropped_users=pc.sum(prompts["dropped_users"]).as_py() or 0,
    )
