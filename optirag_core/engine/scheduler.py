"""What runs next: survivors wait by depth, as hidden states only, until they fill a step.

Admission is in input order and every choice depends on token counts alone, so the same groups always make the same
rows and, on one machine, the same bits. Kept apart, each part makes the same rows among any others as well.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from optirag_core.engine.decoder import Flight, merge
from optirag_core.engine.layout import PromptPart


@dataclass(frozen=True)
class _Waiting:
    flight: Flight
    since: int  # number of the step behind which it came


class DepthQueues:
    """Parts to admit, one queue of rows per depth, and rows that are held back until their user group may go on."""

    def __init__(self, *, step_tokens: int, max_tokens: int, max_waits: int | None = None, apart: bool = False) -> None:
        """
        Args:
            step_tokens: what one step takes at most.
            max_tokens: what waits, is held and runs at most, at least one step. Held rows alone may exceed it: only
                the admission of what they wait for sets them free.
            max_waits: steps that may pass over a waiting row before it goes first; None: any number.
            apart: a step takes one part, or one row as it came.
        """
        self.step_tokens = step_tokens
        self.max_tokens = max_tokens
        self._max_waits = max_waits
        self._apart = apart
        self._step = 0
        self.halvings = 0
        self._parts: deque[PromptPart] = deque()
        self._waiting: dict[int, deque[_Waiting]] = defaultdict(deque)
        self._held: dict[int, list[Flight]] = defaultdict(list)  # by user group

    def admit(self, parts: Iterable[PromptPart]) -> None:
        """Behind all that were admitted before."""
        self._parts.extend(parts)

    def put(self, flight: Flight) -> None:
        self._waiting[flight.depth].append(_Waiting(flight, self._step))

    def put_back(self, flights: Iterable[Flight]) -> None:
        """To the front, for rows that have to run again."""
        for flight in reversed(list(flights)):
            self._waiting[flight.depth].appendleft(_Waiting(flight, self._step))

    def hold(self, user_group: int, flight: Flight) -> None:
        """Keep a row of one user group back until it is released or dropped."""
        self._held[user_group].append(flight)

    def release(self, user_group: int) -> None:
        """Put what is held of a user group, if anything is."""
        for flight in self._held.pop(user_group, ()):
            self.put(flight)

    def drop(self, user_group: int) -> None:
        """Forget what is held of a user group, if anything is."""
        self._held.pop(user_group, None)

    def waiting_tokens(self) -> Counter[int]:
        """Of the rows that wait or are held, by depth."""
        tokens: Counter[int] = Counter()
        for depth in self._waiting:
            tokens[depth] += self._tokens(depth)
        for flights in self._held.values():
            for flight in flights:
                tokens[flight.depth] += flight.layout.num_tokens
        return tokens

    def halve(self) -> None:
        """Smaller steps from here on."""
        self.step_tokens //= 2
        self.halvings += 1

    def take(self) -> Flight | list[PromptPart] | None:
        """The deepest rows that fill a step; else new parts; else the deepest rows; None: nothing is left to run.

        Rows that have waited too long go before all others.
        """
        self._step += 1
        depths = sorted((depth for depth, waiting in self._waiting.items() if waiting), reverse=True)
        ready = self._overdue(depths) + [depth for depth in depths if self._is_ready(depth)]
        if ready:
            return merge(self._fill(ready[0]))
        if self._parts and (self._has_room(depths) or not depths):
            return self._next_parts()
        return merge(self._fill(depths[0])) if depths else None

    def _overdue(self, depths: Iterable[int]) -> list[int]:
        """Of these depths those whose first row has waited too long, that which has waited longest first."""
        if self._max_waits is None:
            return []
        since = {depth: self._waiting[depth][0].since for depth in depths}
        return sorted((depth for depth in since if self._step - since[depth] > self._max_waits), key=since.__getitem__)

    def _is_ready(self, depth: int) -> bool:
        """A step gains nothing by waiting for more at a depth."""
        return self._apart or self._tokens(depth) >= self.step_tokens

    def _has_room(self, depths: Iterable[int]) -> bool:
        held = sum(flight.layout.num_tokens for flights in self._held.values() for flight in flights)
        return sum(map(self._tokens, depths)) + held + self.step_tokens <= self.max_tokens

    def _tokens(self, depth: int) -> int:
        return sum(waiting.flight.layout.num_tokens for waiting in self._waiting[depth])

    def _fill(self, depth: int) -> list[Flight]:
        queue, tokens = self._waiting[depth], 0
        flights: list[Flight] = []
        while queue and self._joins(bool(flights), tokens + queue[0].flight.layout.num_tokens):
            flights.append(queue.popleft().flight)
            tokens += flights[-1].layout.num_tokens
        return flights

    def _next_parts(self) -> list[PromptPart]:
        parts: list[PromptPart] = []
        tokens = 0
        while self._parts and self._joins(bool(parts), tokens + self._parts[0].num_tokens):
            parts.append(self._parts.popleft())
            tokens += parts[-1].num_tokens
        return parts

    def _joins(self, others: bool, tokens: int) -> bool:
        """Whether one more goes into a step, which then has so many tokens; the first always does."""
        return not others or (tokens <= self.step_tokens and not self._apart)
