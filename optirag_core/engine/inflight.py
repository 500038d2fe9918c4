"""User groups in flight: what is known of their candidates, and what happens to those that a head does not stop.

`group_stop` counts a whole user group, however it was sliced into rows: a candidate that has passed a head waits, with
that head's score pending, until all live candidates of its group have passed it.

Shapes: R pairs of a row, n candidates, F features of evidence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from optirag_core.engine.cost import Cost
from optirag_core.engine.groups import PairScore
from optirag_core.engine.layout import Pair, PromptPart


class Verdict(Enum):
    """What the unstable candidates of a user group do behind a head."""

    GO_ON = "go on"
    STOP = "stop"  # all of them, forced by `group_stop`
    WAIT = "wait"  # for candidates of the group that have yet to pass the head


@dataclass(frozen=True)
class ScoredGroup:
    """A user group of which all candidates are scored."""

    number: int
    """As `Scorer.add` gave it."""
    scores: list[PairScore]  # in the order of its suffixes
    cost: Cost


@dataclass
class GroupInFlight:
    """One user group of which candidates have no score yet."""

    parts: Sequence[PromptPart]
    evidence: Tensor | None = None  # [n, F], where the heads read any
    scores: dict[int, PairScore] = field(default_factory=dict)  # by candidate
    pending: dict[int, PairScore] = field(default_factory=dict)  # of waiting candidates, if the group stops here

    @property
    def size(self) -> int:
        return sum(len(part.candidates) for part in self.parts)


class GroupsInFlight:
    """User groups by their numbers."""

    def __init__(self, group_stop: int | None) -> None:
        """
        Args:
            group_stop: k_min of `ExitPolicy`.
        """
        self._k_min = group_stop
        self._groups: dict[int, GroupInFlight] = {}
        self._scored: list[int] = []

    def __len__(self) -> int:
        return len(self._groups)

    def open(self, number: int, parts: Sequence[PromptPart], evidence: Tensor | None = None) -> None:
        self._groups[number] = GroupInFlight(parts, evidence)
        self._settle(number, Verdict.GO_ON)

    def left(self, number: int) -> list[PromptPart]:
        """What is left to run of a user group, by the scores that it has."""
        group = self._groups[number]
        parts = (part.without(group.scores) for part in group.parts)
        return [part for part in parts if part.candidates]

    def evidence(self, pairs: Sequence[Pair]) -> Tensor | None:
        """[R, F] of a row's pairs, where the heads read any."""
        asked = [(self._groups[pair.user_group].evidence, pair.candidate) for pair in pairs]
        rows = [evidence[candidate] for evidence, candidate in asked if evidence is not None]
        return torch.stack(rows) if len(rows) == len(pairs) else None

    def verdicts(self, pairs: Sequence[Pair], stable: Sequence[bool]) -> dict[int, Verdict]:
        """What follows for each user group of a row [R] that has passed a head; changes nothing."""
        passed = Counter(pair.user_group for pair in pairs)
        k_min = self._k_min
        if k_min is None:
            return dict.fromkeys(passed, Verdict.GO_ON)
        stopped = Counter(pair.user_group for pair, stops in zip(pairs, stable, strict=True) if stops)
        return {number: self._verdict(number, passed[number], stopped[number], k_min) for number in passed}

    def _verdict(self, number: int, passed: int, stopped: int, k_min: int) -> Verdict:
        group = self._groups[number]
        if len(group.scores) + len(group.pending) + passed < group.size:
            return Verdict.WAIT
        return Verdict.STOP if len(group.pending) + passed - stopped < k_min else Verdict.GO_ON

    def record(
        self, pairs: Sequence[Pair], scores: Sequence[float], layer: int, stable: Sequence[bool],
        verdicts: dict[int, Verdict],
    ) -> None:  # fmt: skip
        """Keep what a head at `layer` said of a row [R], and do to its user groups what the verdicts say."""
        for pair, score, stops in zip(pairs, scores, stable, strict=True):
            group = self._groups[pair.user_group]
            if stops:
                group.scores[pair.candidate] = PairScore(score, layer)
            elif verdicts[pair.user_group] is not Verdict.GO_ON:
                group.pending[pair.candidate] = PairScore(score, layer, forced=True)
        for number, verdict in verdicts.items():
            self._settle(number, verdict)

    def _settle(self, number: int, verdict: Verdict) -> None:
        group = self._groups[number]
        if verdict is Verdict.STOP:
            group.scores |= group.pending
        if verdict is not Verdict.WAIT:
            group.pending = {}
        if len(group.scores) == group.size:
            self._scored.append(number)

    def pop_scored(self) -> dict[int, GroupInFlight]:
        """User groups that have all their scores since the last call; they are in flight no more."""
        scored, self._scored = self._scored, []
        return {number: self._groups.pop(number) for number in scored}
