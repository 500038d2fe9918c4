"""Which pairs stop at an exit layer: algorithm 2 of arXiv:2501.02173v2 and what the prefix's cost asks for.

A prefix runs as deep as the deepest of its candidates, so independent exits save little of it. Two approximate rules
address that, `group_stop` and `frozen_prefix_after`; a calibration may choose them.

Shapes: R pairs, m window.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from optirag_core.engine.criterion import Criterion, should_exit, window_values


@dataclass(frozen=True)
class ExitPolicy:
    """When a pair may stop (algorithm 2)."""

    criterion: Criterion
    window: int
    threshold: float
    evidence_confidence: float | None = None
    """At depth 0 a pair stops where the head on its evidence alone is at least this sure, max(p, 1 - p)."""
    group_stop: int | None = None
    """k_min: where fewer candidates of a user group are left, they stop with the others (forced)."""
    frozen_prefix_after: int | None = None
    """Above this layer the prefix keeps its hidden states; only its keys and values are projected from them."""

    @property
    def at_depth_0(self) -> Self | None:
        """The policy of the head on the evidence alone, in the form of an exit layer's, whose window is one state.

        None where no pair stops there.
        """
        if self.evidence_confidence is None:
            return None
        return replace(self, criterion="confidence", threshold=self.evidence_confidence)


Choice = tuple[ExitPolicy, tuple[int, ...]]
"""A policy and the exit layers that it uses."""


def stable_at(logits: Tensor, policy: ExitPolicy) -> Tensor:
    """Who stops at one exit layer by its own stability: [R, m+1, 2] logits as in `exits_at` -> [R] bool, on the CPU."""
    values = window_values(logits, policy.criterion)  # [R, m+1]
    return should_exit(values, policy.threshold, policy.criterion).cpu()


def exits_at(logits: Tensor, user_groups: Tensor, policy: ExitPolicy) -> tuple[Tensor, Tensor]:
    """Who stops at one exit layer, for all live pairs of the user groups at once.

    Args:
        logits: [R, m+1, 2] of the layer's head on h^(l-m) ... h^(l), yes first.
        user_groups: [R] the user group of each live pair.

    Returns:
        [R] bool stops, [R] bool stops only because its user group does.
    """
    stable = stable_at(logits, policy)  # [R]
    if policy.group_stop is None or policy.criterion == "none":
        return stable, torch.zeros_like(stable)
    _, index = user_groups.unique(return_inverse=True)
    alive = torch.zeros(len(user_groups), dtype=torch.int64).index_add_(0, index, (~stable).long())  # by user group
    forced = ~stable & (alive[index] < policy.group_stop)
    return stable | forced, forced
