"""What the shards of a run add up to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.runs.attempts import Receipt


@dataclass
class Totals:
    """Sums over receipts; JSON values throughout."""

    shards: int = 0
    scored: int = 0
    rejected: int = 0
    rejects: Counter[str] = field(default_factory=Counter)  # by error_code
    exits: Counter[int] = field(default_factory=Counter)  # pairs by exit layer
    sums: Counter[str] = field(default_factory=Counter)  # the scorers' further figures

    @classmethod
    def of(cls, receipts: Iterable[Receipt]) -> Self:
        totals = cls()
        for receipt in receipts:
            totals.add(receipt)
        return totals

    def add(self, receipt: Receipt) -> None:
        self.shards += 1
        self.scored += receipt.scored
        self.rejected += receipt.rejected
        figures = dict(receipt.figures)
        self.rejects.update(figures.pop("rejects"))
        self.exits.update({int(layer): count for layer, count in figures.pop("exits").items()})
        self.sums.update(figures)

    @property
    def pairs(self) -> int:
        return self.scored + self.rejected

    @property
    def mean_exit_layer(self) -> float:
        return sum(layer * count for layer, count in self.exits.items()) / max(1, self.scored)

    def metrics(self) -> dict[str, Any]:
        """For the manifest."""
        seconds = self.sums["scorer_seconds"]
        return {
            "scored": self.scored,
            "rejected": self.rejected,
            "rejects": dict(sorted(self.rejects.items())),
            "exits": {str(layer): count for layer, count in sorted(self.exits.items())},
            "mean_exit_layer": self.mean_exit_layer,
            "pairs_per_scorer_second": self.scored / seconds if seconds else 0.0,
            **self.sums,
        }


def counted(scores: pa.Table, rejects: pa.Table, **sums: float) -> Mapping[str, Any]:
    """The figures of one shard, as a receipt keeps them.

    Args:
        sums: further figures that add up.
    """
    return {"rejects": _counts(rejects["error_code"]), "exits": _counts(scores["exit_layer"]), **sums}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in pc.value_counts(column).to_pylist()}
