"""One thread that runs an engine for many callers: groups come in between its steps, and leave when they are scored.

    waiting calls -> Scorer.add -> Scorer.step, again and again -> the caller's future

A busy caller's groups never wait for another's to end: a row is filled with whatever is at the same depth.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.inflight import ScoredGroup
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import OptiragError

log = logging.getLogger(__name__)


class EngineFailed(OptiragError):
    """A call's groups could not be computed, also not alone."""


@dataclass(frozen=True)
class Scores:
    """What a call gets, and how long it took."""

    scores: Sequence[PairScore]
    queue_s: float  # until the engine let the group in
    engine_s: float


@dataclass
class _Call:
    group: UserGroup
    policy: str
    future: Future[Scores] = field(default_factory=Future)
    came: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    alone: bool = False  # its row failed among others

    @property
    def tokens(self) -> int:
        """Of its prompts, the prefix once."""
        return len(self.group.prefix) + sum(map(len, self.group.suffixes))


class EngineLoop:
    """Scorers of one model, one for each exit policy, behind one thread."""

    def __init__(self, scorers: Mapping[str, Scorer], *, max_tokens: int) -> None:
        """
        Args:
            scorers: by the name of the policy; they may share a model.
            max_tokens: prompt tokens in the scorers together; further calls wait outside, where they can be given up.
        """
        self._scorers, self._max_tokens = dict(scorers), max_tokens
        self._arrived: deque[_Call] = deque()
        self._asked: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running: dict[tuple[str, int], _Call] = {}  # by policy and number in its scorer
        self._tokens = 0  # of what runs
        self.num_steps = 0  # that have ended
        self._wake = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs; a loop whose thread has died answers nobody."""
        return self._thread.is_alive()

    async def score(self, group: UserGroup, policy: str) -> Scores:
        """Score one group among those that are in flight.

        Raises:
            ModelError: as `Scorer.add`.
            EngineFailed: the row of the group failed, also alone.
        """
        call = _Call(group, policy)
        with self._wake:
            self._refuse_after_the_end()
            self._arrived.append(call)
            self._wake.notify()
        return await asyncio.wrap_future(call.future)

    async def ask(self, question: Callable[[], Any]) -> Any:
        """What a function says that uses the scorers, such as a trace; called between two steps."""
        future: Future[Any] = Future()
        with self._wake:
            self._refuse_after_the_end()
            self._asked.append((question, future))
            self._wake.notify()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread once nothing waits or runs."""
        with self._wake:
            self._ends = True
            self._wake.notify()
        self._thread.join()

    def _refuse_after_the_end(self) -> None:
        if self._ends:
            raise EngineFailed("the engine has stopped")

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._answer()
                self._admit()
                for policy, scorer in self._scorers.items():
                    if not scorer.is_finished:
                        self._step(policy, scorer)
        except torch.AcceleratorError:  # the process's CUDA context is dead: nothing in it will work again
            log.exception("this process ends, another one takes its place")
            os._exit(1)
        finally:  # an error that nobody expects: who waits must not wait for ever
            with self._wake:
                self._ends = True
            waiting = [call.future for call in (*self._arrived, *self._running.values())]
            for future in (*waiting, *(future for _, future in self._asked)):
                if not future.done():
                    future.set_exception(EngineFailed("the engine has stopped"))

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._arrived or self._asked or self._running):
                if self._ends:
                    return False
                self._wake.wait()
            return True

    def _answer(self) -> None:
        """The next of what was asked beside the scoring."""
        if self._asked:
            question, future = self._asked.popleft()
            if future.set_running_or_notify_cancel():
                _settle(future, question)

    def _admit(self) -> None:
        """What there is room for; those that failed among others come one at a time, when nothing else runs."""
        while self._arrived:
            first = self._arrived[0]
            if self._running and (first.alone or self._tokens + first.tokens > self._max_tokens):
                return
            call = self._arrived.popleft()
            if not call.alone and not call.future.set_running_or_notify_cancel():  # the caller has gone
                continue
            try:
                [number] = self._scorers[call.policy].add([call.group])
            except (torch.OutOfMemoryError, OptiragError) as error:
                call.future.set_exception(error)
                continue
            call.began = call.began or time.perf_counter()
            self._running[call.policy, number] = call
            self._tokens += call.tokens
            if call.alone:
                return

    def _step(self, policy: str, scorer: Scorer) -> None:
        try:
            scored = scorer.step()
        except (torch.OutOfMemoryError, OptiragError) as error:
            log.warning("a step failed with %s: its groups run again, each alone", type(error).__name__)
            self._again(policy, error)
            return
        self.num_steps += 1
        for group in scored:
            self._finish(self._left(policy, group.number), group)

    def _again(self, policy: str, error: Exception) -> None:
        """The groups of a scorer after an error in its step, which has forgotten them."""
        lost = [key for key in self._running if key[0] == policy]
        for call in [self._left(*key) for key in lost]:
            if call.alone:
                call.future.set_exception(EngineFailed(f"{type(error).__name__} in a step with one call: {error}"))
            else:
                self._arrived.appendleft(replace(call, alone=True))

    def _left(self, policy: str, number: int) -> _Call:
        call = self._running.pop((policy, number))
        self._tokens -= call.tokens
        return call

    def _finish(self, call: _Call, group: ScoredGroup) -> None:
        now = time.perf_counter()
        call.future.set_result(Scores(group.scores, call.began - call.came, now - call.began))


def _settle(future: Future[Any], question: Callable[[], Any]) -> None:
    try:
        future.set_result(question())
    except (torch.OutOfMemoryError, OptiragError) as error:
        future.set_exception(error)
