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
    sums: Counter[str] = field(default_factory=Counter)  # the receipts' further counts

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
        counts = dict(receipt.counts)
        self.rejects.update(counts.pop("rejects"))
        self.exits.update({int(layer): count for layer, count in counts.pop("exits").items()})
        self.sums.update(counts)

    @property
    def pairs(self) -> int:
        return self.scored + self.rejected

    @property
    def mean_exit_layer(self) -> float:
        return sum(layer * count for layer, count in self.exits.items()) / max(1, self.scored)

    def metrics(self) -> dict[str, Any]:
        """For the manifest: every sum under its own name, beside what is always there.

        `pairs_per_scorer_second` is of the pairs that the scorers were given: a pair that was rejected before took them
        no time, one that was rejected for its score did.
        """
        seconds = self.sums["scorer_seconds"]
        return {
            **self.sums,
            "scored": self.scored,
            "rejected": self.rejected,
            "rejects": dict(sorted(self.rejects.items())),
            "exits": {str(layer): count for layer, count in sorted(self.exits.items())},
            "mean_exit_layer": self.mean_exit_layer,
            "pairs_per_scorer_second": self.sums["scorer_pairs"] / seconds if seconds else 0.0,
        }


def counted(scores: pa.Table, rejects: pa.Table, **sums: float) -> Mapping[str, Any]:
    """The counts of one shard, as a receipt keeps them.

    Args:
        sums: further counts, which add up over shards: `scorer_pairs` and `scorer_seconds`, pairs that a scorer was
            given and its time for them, and any others.
    """
    return {"rejects": _counts(rejects["error_code"]), "exits": _counts(scores["exit_layer"]), **sums}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in pc.value_counts(column).to_pylist()}
