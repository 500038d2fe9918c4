"""The unit of work of a scorer: one user's shared prefix and a suffix per candidate.

Shapes: P prefix tokens, S suffix tokens, n candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class UserGroup:
    """Prompts of one user: `prefix + suffix` is a whole prompt."""

    prefix: Sequence[int]  # [P]
    suffixes: Sequence[Sequence[int]]  # n x [S], lengths differ


@dataclass(frozen=True)
class PairScore:
    """The result for one candidate."""

    score: float  # p(yes) in [0, 1]
    exit_layer: int  # 1-based; the number of layers when no head stopped it
    forced: bool = False  # stopped by `exit_policy.group_stop`, not by its own stability
