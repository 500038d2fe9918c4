"""A scoring run on many scorers, event by event: when it ends, and what lost nodes, slow ones and the driver cost.

What happens in it is what Ray Data 2.60 does with the stages of `ray_jobs.shard_stream`:

- The driver hands out shards in order, each to the scorer that holds fewest, which holds at most two: one that it
  scores and one that waits behind it.
- When a node is lost, the shards that its scorers hold stay theirs, as an actor's tasks do: they begin anew once the
  node is back and has started. Other shards go to the others.
- The driver takes its time for each receipt, one after another; until then the scorer counts as holding the shard.

`retries_move` is what Ray does not do: there the shards of a lost node go to others at once.
"""

import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from optirag_core.errors import ConfigError

if TYPE_CHECKING:
    import simpy

HOUR_S = 3600.0


@dataclass(frozen=True)
class Cluster:
    """The machines that a run is simulated on."""

    num_scorers: int
    scorers_per_node: int = 1  # that are lost together
    start_up_s: float = 0.0  # of a node, until its scorers take shards
    losses_per_node_hour: float = 0.0  # as likely at any moment
    return_s: float = 0.0  # until another node stands in for a lost one, before its start-up
    slow_share: float = 0.0  # of the nodes
    slow_factor: float = 1.0  # times as long as the others is what a slow one takes
    in_flight: int = 2  # shards that a scorer holds: Ray's factor of tasks in flight to concurrency
    retries_move: bool = False  # shards of a lost node go to other scorers


@dataclass(frozen=True)
class Shards:
    """The shards of a run."""

    number: int
    mean_s: float  # of one on a scorer that is not slow
    spread: float = 0.0  # standard deviation over mean
    driver_s: float = 0.0  # of the driver, for each receipt
    commit_s: float = 0.0

    def seconds(self, random: np.random.Generator) -> list[float]:
        """Of each shard, log-normal [number]."""
        variance = math.log1p(self.spread**2)
        return random.lognormal(math.log(self.mean_s) - variance / 2, math.sqrt(variance), self.number).tolist()


@dataclass(frozen=True)
class Outcome:
    """One run."""

    finish_s: float  # from the start of the nodes to the end of the commit
    scored_s: float  # scorers' time for attempts that counted
    lost_s: float  # scorers' time for attempts that ended with their node
    num_losses: int  # of nodes
    attempts: Sequence[int]  # of each shard
    finished: Sequence[int]  # how often each shard was finished: once

    @property
    def lost_share(self) -> float:
        """Of the work that was done."""
        return self.lost_s / (self.scored_s + self.lost_s)


def simulate(
    cluster: Cluster, shards: Shards, *, seed: int, losses: Mapping[int, Sequence[float]] | None = None
) -> Outcome:
    """One run from its first node's start to its commit.

    Args:
        losses: node -> moments in seconds at which it is lost where it is there, beside those that chance brings.

    Raises:
        ConfigError: simpy is not installed.
    """
    library = _load_simpy()
    run = _Simulation(library, cluster, shards, np.random.default_rng(seed), losses or {})
    run.env.run(until=run.done)
    return Outcome(
        run.driver_free_s + shards.commit_s, run.scored_s, run.lost_s, run.num_losses, run.attempts, run.finished
    )


def _load_simpy() -> ModuleType:
    try:
        import simpy
    except ImportError:
        raise ConfigError("simpy, which simulates runs, is not installed: pip install 'simpy>=4.1,<5'") from None
    return simpy


@dataclass(eq=False)
class _Scorer:
    """One scorer through all lives of its node."""

    number: int
    held: deque[int] = field(default_factory=deque)  # shards; the first one is scored
    untold: int = 0  # receipts that the driver has not taken
    began_s: float | None = None  # the attempt at hand
    load: int | None = None  # the place among those that may be given shards
    work: Any = None  # the event that a scorer without shards waits for


class _Simulation:
    """The state of one run; nodes and scorers are simpy's processes."""

    def __init__(
        self, library: ModuleType, cluster: Cluster, shards: Shards, random: np.random.Generator,
        losses: Mapping[int, Sequence[float]],
    ) -> None:  # fmt: skip
        self._library, self._cluster, self._shards, self._random = library, cluster, shards, random
        self.env: simpy.Environment = library.Environment()
        self.done = self.env.event()
        self._seconds = shards.seconds(random)
        self._waiting = deque(range(shards.number))
        self._open: list[dict[_Scorer, None]] = [{} for _ in range(cluster.in_flight)]  # by load, first come first
        self.attempts, self.finished = [0] * shards.number, [0] * shards.number
        self._left = shards.number
        self.driver_free_s = self.scored_s = self.lost_s = 0.0
        self.num_losses = 0
        scorers = [_Scorer(number) for number in range(cluster.num_scorers)]
        for node, first in enumerate(range(0, cluster.num_scorers, cluster.scorers_per_node)):
            self.env.process(self._node(scorers[first : first + cluster.scorers_per_node], losses.get(node, ())))

    def _node(self, scorers: Sequence[_Scorer], losses: Sequence[float]) -> Generator[Any]:
        """Starts, is there for a while, is lost, comes back."""
        cluster, rate = self._cluster, self._cluster.losses_per_node_hour / HOUR_S
        while True:
            yield self.env.timeout(cluster.start_up_s)
            factor = cluster.slow_factor if self._random.random() < cluster.slow_share else 1.0
            lives = [self.env.process(self._scores(scorer, factor)) for scorer in scorers]
            lifetime = self._random.exponential(1 / rate) if rate else math.inf
            lost_at = min([self.env.now + lifetime, *(moment for moment in losses if moment > self.env.now)])
            if lost_at == math.inf:
                return
            yield self.env.timeout(lost_at - self.env.now)
            self.num_losses += 1
            for scorer in scorers:  # before any of them gives up its shards, which no other of the node shall take
                self._unplace(scorer)
            for life in lives:
                life.interrupt()
            yield self.env.timeout(cluster.return_s)

    def _scores(self, scorer: _Scorer, factor: float) -> Generator[Any]:
        """One shard after another, until the node is lost."""
        try:
            self._place(scorer)
            yield self.env.timeout(0)  # those that start at the same moment are all there before any is given a shard
            self._hand_out()
            while True:
                if not scorer.held:
                    scorer.work = self.env.event()
                    yield scorer.work
                shard = scorer.held[0]
                self.attempts[shard] += 1
                scorer.began_s = self.env.now
                seconds = self._seconds[shard] * factor
                yield self.env.timeout(seconds)
                self._finish(scorer, seconds)
        except self._library.Interrupt:
            self._lose(scorer)

    def _finish(self, scorer: _Scorer, seconds: float) -> None:
        shard = scorer.held.popleft()
        self.finished[shard] += 1
        self.scored_s += seconds
        scorer.began_s = None
        self.driver_free_s = max(self.driver_free_s, self.env.now) + self._shards.driver_s
        scorer.untold += 1
        taken = self.env.timeout(self.driver_free_s - self.env.now, scorer)
        taken.callbacks.append(self._take)

    def _take(self, receipt: Any) -> None:
        """The driver takes a receipt: its scorer has room for another shard."""
        scorer: _Scorer = receipt.value
        scorer.untold -= 1
        self._left -= 1
        if not self._left:
            self.done.succeed()
        elif scorer.load is not None:
            self._place(scorer)
            self._hand_out()

    def _lose(self, scorer: _Scorer) -> None:
        if scorer.began_s is not None:
            self.lost_s += self.env.now - scorer.began_s
        scorer.began_s = scorer.work = None
        self._unplace(scorer)
        if self._cluster.retries_move:
            self._waiting.extendleft(reversed(scorer.held))
            scorer.held.clear()
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            scorer = next((next(iter(scorers)) for scorers in self._open if scorers), None)
            if scorer is None:
                return
            scorer.held.append(self._waiting.popleft())
            self._place(scorer)
            if scorer.work is not None:
                scorer.work.succeed()
                scorer.work = None

    def _place(self, scorer: _Scorer) -> None:
        """Put a scorer that is there among those with as many shards; at the limit it gets none."""
        self._unplace(scorer)
        scorer.load = len(scorer.held) + scorer.untold
        if scorer.load < len(self._open):
            self._open[scorer.load][scorer] = None

    def _unplace(self, scorer: _Scorer) -> None:
        if scorer.load is not None and scorer.load < len(self._open):
            del self._open[scorer.load][scorer]
        scorer.load = None
