"""Scores of several ways to answer the same labelled pairs, and what each cost: what tables and plots are made of.

Shapes: n pairs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.data.dataset import write_table
from optirag_core.evaluation.predictors import PAIR_KEY

ANSWERS_FILE, FACTS_FILE = "answers.parquet", "facts.json"
LABEL, SCORE, EXIT = "label", "score", "exit_layer"


@dataclass(frozen=True)
class Answer:
    """One way to answer."""

    scores: np.ndarray  # [n] float64 p(yes)
    exit_layers: np.ndarray  # [n] int16
    flops_share: float = 1.0  # of full depth, over all pairs


@dataclass(frozen=True)
class Measurement:
    """Answers to the same pairs, by name, and further figures."""

    users: np.ndarray  # [n]
    items: np.ndarray  # [n]
    labels: np.ndarray  # [n] int8, 1 liked
    answers: Mapping[str, Answer] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values

    def at(self, pairs: Sequence[tuple[str, str]]) -> Self:
        """The same at some of the pairs, in their order."""
        row = {pair: number for number, pair in enumerate(zip(self.users, self.items, strict=True))}
        rows = np.array([row[pair] for pair in pairs], dtype=np.int64)
        kept = {
            name: Answer(each.scores[rows], each.exit_layers[rows], each.flops_share)
            for name, each in self.answers.items()
        }
        return type(self)(self.users[rows], self.items[rows], self.labels[rows], kept, self.facts)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Figures that belong to no pair."""
        nothing = np.array([], dtype=str)
        return cls(nothing, nothing, np.array([], dtype=np.int8), {}, facts)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(user, item) of each."""
        return list(zip(self.users, self.items, strict=True))

    def save(self, folder: Path) -> None:
        """Write both files into an existing folder."""
        columns = {"user_id": self.users, "item_id": self.items, LABEL: self.labels.astype(np.int8)}
        for name, each in self.answers.items():
            columns[f"{SCORE}:{name}"] = each.scores
            columns[f"{EXIT}:{name}"] = each.exit_layers.astype(np.int16)
        write_table(pa.table(columns), folder / ANSWERS_FILE)
        shares = {name: each.flops_share for name, each in self.answers.items()}
        (folder / FACTS_FILE).write_text(json.dumps({"flops": shares, "facts": self.facts}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` has written."""
        table = pq.read_table(folder / ANSWERS_FILE)
        told = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        users, items, labels = (table[name].to_numpy() for name in (*PAIR_KEY.names, LABEL))
        answers = {
            name: Answer(table[f"{SCORE}:{name}"].to_numpy(), table[f"{EXIT}:{name}"].to_numpy(), share)
            for name, share in told["flops"].items()
        }
        return cls(users, items, labels, answers, told["facts"])
