"""The unit of work of a scorer: one user's shared prefix and a suffix per candidate.

Shapes: P prefix tokens, S suffix tokens, n candidates, F features of evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optirag_core.errors import ModelError


@dataclass(frozen=True)
class UserGroup:
    """Prompts of one user: `prefix + suffix` is a whole prompt."""

    prefix: Sequence[int]  # [P]
    suffixes: Sequence[Sequence[int]]  # n x [S], lengths differ
    evidence: Sequence[Sequence[float]] | None = None  # n x [F], standardised; known of each pair beside its prompt


@dataclass(frozen=True)
class PairScore:
    """The result for one candidate."""

    score: float  # p(yes) in [0, 1]
    exit_layer: int  # 1-based; the number of layers when no head stopped it, 0 when its evidence alone did
    forced: bool = False  # stopped by `exit_policy.group_stop`, not by its own stability


def check_lengths(groups: Sequence[UserGroup], *, context: int, step_tokens: int) -> None:
    """
    Args:
        context: tokens that the LLM reads.
        step_tokens: tokens that the scorer runs at a time.

    Raises:
        ModelError: a prompt is empty, or longer than either.
    """
    lengths = {len(group.prefix) + len(suffix) for group in groups for suffix in group.suffixes}
    longest, shortest = max(lengths, default=1), min(lengths, default=1)
    if shortest == 0:
        raise ModelError("a prompt has no tokens: neither a prefix nor a suffix was given")
    if longest > context:
        raise ModelError(f"a prompt has {longest} tokens, the LLM's context is {context}: lower prompt.max_tokens")
    if longest > step_tokens:
        raise ModelError(
            f"a prompt has {longest} tokens, a step takes {step_tokens}: raise engine.max_tokens_in_flight to "
            f"{2 * longest} or more, or lower prompt.max_tokens"
        )
