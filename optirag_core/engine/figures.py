"""What one scoring call did, in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from optirag_core.engine.cost import Cost
from optirag_core.engine.groups import PairScore
from optirag_core.engine.inflight import ScoredGroup


@dataclass(frozen=True)
class CallFigures:
    """Of one call of `Scorer.score`."""

    pairs: int
    seconds: float
    cost: Cost
    forced: int  # pairs that stopped only because their user group did
    halvings: int  # of the step's tokens, by a GPU out of memory

    @classmethod
    def of(cls, groups: Sequence[ScoredGroup], *, seconds: float, halvings: int) -> Self:
        pairs = [pair for group in groups for pair in group.scores]
        return cls(
            pairs=len(pairs),
            seconds=seconds,
            cost=sum((group.cost for group in groups), Cost()),
            forced=sum(pair.forced for pair in pairs),
            halvings=halvings,
        )

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    def utilisation(self, gemm_flops_per_s: float) -> float:
        """Useful FLOPs per second over what this machine's matrix product reaches."""
        return self.cost.flops / self.seconds / gemm_flops_per_s if self.seconds else 0.0


@dataclass(frozen=True)
class Scored:
    """What one call of `Scorer.score` gives."""

    scores: list[list[PairScore]]
    """One list per user group, in its suffixes' order."""
    figures: CallFigures
