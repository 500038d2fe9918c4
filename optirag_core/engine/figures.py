"""What a run of the scorer did, in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from optirag_core.engine.cost import Cost
from optirag_core.engine.groups import PairScore


@dataclass(frozen=True)
class RunFigures:
    """One call of `Scorer.score`."""

    pairs: int
    seconds: float
    cost: Cost
    suffix_layers: int  # exit layers, summed over pairs
    forced: int  # pairs that stopped only because their group did
    halvings: int  # of the step's tokens, by a GPU out of memory

    @classmethod
    def of(cls, scores: Sequence[Sequence[PairScore]], cost: Cost, *, seconds: float, halvings: int) -> Self:
        flat = [pair for pairs in scores for pair in pairs]
        depth, forced = sum(pair.exit_layer for pair in flat), sum(pair.forced for pair in flat)
        return cls(len(flat), seconds, cost, depth, forced, halvings)

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    @property
    def mean_suffix_depth(self) -> float:
        return self.suffix_layers / max(1, self.pairs)

    @property
    def mean_prefix_depth(self) -> float:
        return self.cost.prefix_layers / max(1, self.cost.prefixes)

    def utilisation(self, gemm_flops_per_s: float) -> float:
        """Useful FLOPs per second over what this machine's matrix product reaches."""
        return self.cost.flops / self.seconds / gemm_flops_per_s if self.seconds else 0.0
