"""What runs next: survivors wait by depth, as hidden states only, until they fill a step.

Admission is in input order and every choice depends on token counts alone, so the same groups always make the same
rows and, on one machine, the same bits.
"""

from collections import defaultdict, deque
from collections.abc import Iterable

from optirag_core.engine.decoder import Flight, merge
from optirag_core.engine.layout import PromptPart


class DepthQueues:
    """Parts to admit, one queue of rows per depth, and rows that are held back until their user group may go on."""

    def __init__(self, *, step_tokens: int, max_tokens: int) -> None:
        """
        Args:
            step_tokens: what one step takes at most.
            max_tokens: what waits, is held and runs at most, at least one step. Held rows alone may exceed it: only
                the admission of what they wait for sets them free.
        """
        self.step_tokens = step_tokens
        self.max_tokens = max_tokens
        self.halvings = 0
        self._parts: deque[PromptPart] = deque()
        self._waiting: dict[int, deque[Flight]] = defaultdict(deque)
        self._held: dict[int, list[Flight]] = defaultdict(list)  # by user group

    def admit(self, parts: Iterable[PromptPart]) -> None:
        """Behind all that were admitted before."""
        self._parts.extend(parts)

    def put(self, flight: Flight) -> None:
        self._waiting[flight.depth].append(flight)

    def put_back(self, flights: Iterable[Flight]) -> None:
        """To the front, for rows that have to run again."""
        for flight in reversed(list(flights)):
            self._waiting[flight.depth].appendleft(flight)

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

    def halve(self) -> None:
        """Smaller steps from here on."""
        self.step_tokens //= 2
        self.halvings += 1

    def take(self) -> Flight | list[PromptPart] | None:
        """The deepest rows that fill a step; else new parts; else the deepest rows; None: nothing is left to run."""
        depths = sorted((depth for depth, flights in self._waiting.items() if flights), reverse=True)
        for depth in depths:
            if self._tokens(depth) >= self.step_tokens:
                return merge(self._fill(depth))
        if self._parts and (self._has_room(depths) or not depths):
            return self._next_parts()
        return merge(self._fill(depths[0])) if depths else None

    def _has_room(self, depths: Iterable[int]) -> bool:
        held = sum(flight.layout.num_tokens for flights in self._held.values() for flight in flights)
        return sum(map(self._tokens, depths)) + held + self.step_tokens <= self.max_tokens

    def _tokens(self, depth: int) -> int:
        return sum(flight.layout.num_tokens for flight in self._waiting[depth])

    def _fill(self, depth: int) -> list[Flight]:
        queue, tokens = self._waiting[depth], 0
        flights: list[Flight] = []
        while queue and (not flights or tokens + queue[0].layout.num_tokens <= self.step_tokens):
            flights.append(queue.popleft())
            tokens += flights[-1].layout.num_tokens
        return flights

    def _next_parts(self) -> list[PromptPart]:
        parts, tokens = [], 0
        while self._parts and (not parts or tokens + self._parts[0].num_tokens <= self.step_tokens):
            parts.append(self._parts.popleft())
            tokens += parts[-1].num_tokens
        return parts
