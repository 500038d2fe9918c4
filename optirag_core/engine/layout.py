"""Many prompts in one row: a prefix once, then its suffixes, then the next prefix ... (CSR offsets, no padding).

    row         [ prefix a | a1 | a2 | a3 | prefix b | b1 | ... ]
    positions     0 .. P-1   P..  P..  P..  0 .. P-1   P..

Shapes: T packed tokens, G packed groups, R pairs of the row, P prefix tokens, S suffix tokens.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from optirag_core.engine.groups import UserGroup


class Pair(NamedTuple):
    """One candidate of one user."""

    user_group: int  # its number in the scorer
    candidate: int  # its place in the user group


@dataclass(frozen=True)
class PromptPart:
    """Token ids of one packed group: a user group, or a slice of its candidates where it exceeds a step."""

    user_group: int  # its number in the scorer
    prefix: Sequence[int]  # [P], common to all prompts of the user group
    suffixes: Sequence[Sequence[int]]  # n x [S], shortest first, none empty
    candidates: Sequence[int]  # n, the place of each suffix's candidate in the user group

    @property
    def num_tokens(self) -> int:
        return len(self.prefix) + sum(map(len, self.suffixes))

    def without(self, candidates: Collection[int]) -> "PromptPart":
        """What is left of it, maybe no suffix."""
        left = [index for index, candidate in enumerate(self.candidates) if candidate not in candidates]
        return replace(
            self,
            suffixes=[self.suffixes[index] for index in left],
            candidates=[self.candidates[index] for index in left],
        )


@dataclass(frozen=True)
class PackedGroup:
    """A prefix and its live suffixes, as lengths."""

    user_group: int
    prefix: int
    suffixes: tuple[int, ...]
    candidates: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return self.prefix + sum(self.suffixes)


@dataclass(frozen=True)
class SuffixBatch:
    """Neighbouring suffixes of one length: a batch without padding, and without a copy."""

    query_start: int
    key_start: int
    count: int
    queries: int  # per suffix
    keys: int  # per suffix


@dataclass(frozen=True)
class Span:
    """The queries of one group, and where their keys are."""

    query_start: int
    query_stop: int
    prefix_queries: int  # P when the prefix asks as well, else 0
    key_start: int
    prefix_keys: int  # P
    batches: tuple[SuffixBatch, ...]


@dataclass(frozen=True)
class Queries:
    """The tokens of a row that look at its keys."""

    rows: Tensor | None  # [Tq] index into the row; None: all of it
    spans: tuple[Span, ...]
    _plans: dict[tuple[Any, torch.device], Any] = field(default_factory=dict, repr=False, compare=False)

    def cached(self, plan: Any, device: torch.device) -> Any:
        """`plan.of(self, device)`, made once for all layers."""
        if (plan, device) not in self._plans:
            self._plans[plan, device] = plan.of(self, device)
        return self._plans[plan, device]


@dataclass(frozen=True)
class Layout:
    """Which token of a packed row is what."""

    groups: tuple[PackedGroup, ...]

    @classmethod
    def of(cls, parts: Sequence[PromptPart]) -> Self:
        groups = (
            PackedGroup(
                user_group=part.user_group,
                prefix=len(part.prefix),
                suffixes=tuple(map(len, part.suffixes)),
                candidates=tuple(part.candidates),
            )
            for part in parts
        )
        return cls(tuple(groups))

    @cached_property
    def starts(self) -> list[int]:
        """[G + 1] first token of each group, and T."""
        return list(accumulate((group.num_tokens for group in self.groups), initial=0))

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.starts[-1]

    @cached_property
    def pairs(self) -> list[Pair]:
        """[R] the pair of each suffix."""
        return [Pair(group.user_group, candidate) for group in self.groups for candidate in group.candidates]

    @cached_property
    def positions(self) -> Tensor:
        """[T] the position of each token in its own prompt."""
        positions: list[int] = []
        for group in self.groups:
            positions.extend(range(group.prefix))
            for length in group.suffixes:
                positions.extend(range(group.prefix, group.prefix + length))
        return torch.tensor(positions)

    def keep(self, alive: Sequence[bool]) -> tuple["Layout", Tensor]:
        """Drop suffixes, and the prefix of a group that has none left.

        Args:
            alive: [R].

        Returns:
            The layout of what is left and its tokens' index [T'] into this row.
        """
        groups: list[PackedGroup] = []
        tokens: list[int] = []
        flags = iter(alive)
        for start, group in zip(self.starts, self.groups, strict=False):
            kept = [index for index, _ in enumerate(group.candidates) if next(flags)]
            if not kept:
                continue
            suffixes, candidates = (
                tuple(values[index] for index in kept) for values in (group.suffixes, group.candidates)
            )
            groups.append(replace(group, suffixes=suffixes, candidates=candidates))
            offsets = list(accumulate(group.suffixes, initial=start + group.prefix))
            tokens += range(start, start + group.prefix)
            for index in kept:
                tokens += range(offsets[index], offsets[index + 1])
        return Layout(tuple(groups)), torch.tensor(tokens)

    @cached_property
    def all_queries(self) -> Queries:
        """Every token."""
        return replace(self._queries(prefix=True, last_only=False), rows=None)

    @cached_property
    def last_queries(self) -> Queries:
        """The last token of every suffix: all that an exit head reads."""
        return self._queries(prefix=False, last_only=True)

    @cached_property
    def suffix_queries(self) -> Queries:
        """Every token of every suffix: all that still changes above a frozen prefix."""
        return self._queries(prefix=False, last_only=False)

    def _queries(self, *, prefix: bool, last_only: bool) -> Queries:
        spans: list[Span] = []
        rows: list[int] = []
        for start, group in zip(self.starts, self.groups, strict=False):
            first, token, batches = len(rows), start + group.prefix, []
            rows += range(start, token) if prefix else ()
            for length, same in groupby(group.suffixes):
                count, asked = len(list(same)), 1 if last_only else length
                batch = SuffixBatch(query_start=len(rows), key_start=token, count=count, queries=asked, keys=length)
                batches.append(batch)
                rows += range(token + length - asked, token + count * length, length if last_only else 1)
                token += count * length
            span = Span(
                query_start=first,
                query_stop=len(rows),
                prefix_queries=group.prefix if prefix else 0,
                key_start=start,
                prefix_keys=group.prefix,
                batches=tuple(batches),
            )
            spans.append(span)
        return Queries(torch.tensor(rows), tuple(spans))


def split_prompts(group: UserGroup) -> tuple[Sequence[int], list[Sequence[int]]]:
    """The longest common prefix of a group's prompts, and what is left of each: at least its last token.

    Candidates often share the first words of the question too; those are computed once then.
    """
    first, last = min(group.suffixes, key=list), max(group.suffixes, key=list)  # what these share, all share
    shortest = min(map(len, group.suffixes))
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), shortest)
    shared = len(group.prefix) + min(shared, shortest - 1)  # one less than the prefix for an empty suffix
    if shared < len(group.prefix):
        return group.prefix[:shared], [[*group.prefix[shared:], *suffix] for suffix in group.suffixes]
    extra = shared - len(group.prefix)
    return [*group.prefix, *first[:extra]], [suffix[extra:] for suffix in group.suffixes]


def parts_of(group: UserGroup, number: int, max_tokens: int) -> list[PromptPart]:
    """A user group as parts of at most `max_tokens` tokens (one pair may exceed it); none without candidates.

    Candidates keep their order but for their length: shortest first, so that equal ones are neighbours.

    Args:
        number: the user group's in the scorer.
    """
    if not group.suffixes:
        return []
    prefix, suffixes = split_prompts(group)
    slices: list[list[int]] = [[]]
    tokens = len(prefix)
    for candidate in sorted(range(len(suffixes)), key=lambda candidate: len(suffixes[candidate])):
        if slices[-1] and tokens + len(suffixes[candidate]) > max_tokens:
            slices.append([])
            tokens = len(prefix)
        slices[-1].append(candidate)
        tokens += len(suffixes[candidate])
    return [PromptPart(number, prefix, [suffixes[candidate] for candidate in chosen], chosen) for chosen in slices]
