"""What every stage of a scoring run is at, for the driver's watchdog and for the run's events."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from optirag_core.errors import ShardFailed
from ray_jobs.run_events import Event, event

STAGES = ("build", "score")
PATIENCE_S = 10.0
"""A board that does not answer within it lives on a Ray that does not answer."""
TELL_S = 1.0
"""Between two looks of the driver at what has happened."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that a process has begun and not ended."""

    shard: int
    attempt: int
    pid: int
    host: str
    began_s: float  # of the board's clock

    def event(self, name: str, stage: str, **fields: Any) -> Event:
        """What has happened to it."""
        return event(name, host=self.host, pid=self.pid, stage=stage, shard=self.shard, attempt=self.attempt, **fields)


# What it forgets with its node only delays a verdict, and an event of that second is not told.
@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class RunBoard:
    """Shards begun and not ended, by stage and process."""

    def __init__(self, max_attempts: int, *, tells: bool = False) -> None:
        """
        Args:
            max_attempts: of a shard in one stage; Ray would go on for ever with one that kills every process.
            tells: keep events until somebody takes them.
        """
        self._max_attempts = max_attempts
        self._open: dict[tuple[str, int, str], OpenShard] = {}
        self._ended = dict.fromkeys(STAGES, 0)
        self._last = ""  # the scorer that ended a shard last
        self._attempts: Counter[tuple[str, int]] = Counter()
        self._tells, self._events = tells, list[Event]()
        self._finished: set[int] = set()

    def begin(self, stage: str, shard: int, pid: int, host: str) -> tuple[int, int]:
        """How often the shard has now been begun in this stage, and how often it may be."""
        for key, entry in list(self._open.items()):
            if (key[0], entry.shard) == (stage, shard):  # a process that died at the shard ended nothing
                self._tell(entry.event("shard_failed", stage, error="ProcessDied"))
                del self._open[key]
        self._attempts[stage, shard] += 1
        attempt = self._attempts[stage, shard]
        self._open[stage, pid, host] = begun = OpenShard(shard, attempt, pid, host, time.monotonic())
        if attempt <= self._max_attempts:
            self._tell(begun.event("shard_begun", stage))
        return attempt, self._max_attempts

    def end(self, stage: str, pid: int, host: str, error: str | None = None, **figures: Any) -> None:
        """
        Args:
            error: name of what ended the process's work at the shard.
            figures: of a shard that is finished, for its event.
        """
        ended = self._open.pop((stage, pid, host), None)
        self._ended[stage] += 1
        if stage == STAGES[-1]:
            self._last = f", the last in process {pid} on {host}"
        if ended and error:
            self._tell(ended.event("shard_failed", stage, error=error))
        elif ended and figures and ended.shard not in self._finished:  # a second attempt finds the first one's receipt
            self._finished.add(ended.shard)
            self._tell(ended.event("shard_finished", stage, **figures))

    def take(self) -> list[Event]:
        """What has happened since the last time."""
        taken, self._events = self._events, []
        return taken

    def _tell(self, happened: Event) -> None:
        if self._tells:
            self._events.append(happened)

    def stalled(self) -> str:
        """The deepest stage that is at work, or what it waits for."""
        for stage in reversed(STAGES):
            begun = [entry for (name, _, _), entry in self._open.items() if name == stage]
            if begun:
                oldest = min(begun, key=lambda entry: entry.began_s)
                seconds = time.monotonic() - oldest.began_s
                return (
                    f"stage `{stage}` is at shard {oldest.shard} since {seconds:.0f} s, in process {oldest.pid} on "
                    f"{oldest.host}: look at that process (py-spy dump --pid {oldest.pid}) and its log in "
                    "/tmp/ray/session_latest/logs"
                )
        if not self._ended["build"]:
            return (
                "stage `build` has not begun: its actors wait for resources or are still loading (ray status, "
                "/tmp/ray/session_latest/logs)"
            )
        return (
            f"stage `score` has not begun a further shard after {self._ended['score']}{self._last}, and "
            f"{self._ended['build']} are built: its actors wait for resources, are still loading or have stopped (ray "
            "status, /tmp/ray/session_latest/logs)"
        )


def stalled_stage(board: ActorHandle) -> str:
    """`RunBoard.stalled`, also where Ray itself is stuck."""
    try:
        return ray.get(board.stalled.remote(), timeout=PATIENCE_S)
    except ray.exceptions.RayError as error:
        return f"Ray itself does not answer ({type(error).__name__}): look at ray status and the raylet's log"


@contextmanager
def noted(board: ActorHandle, stage: str, shard: int) -> Iterator[dict[str, Any]]:
    """The board says that this process is at the shard while the body runs.

    Yields:
        Figures for the body to fill in, JSON values: with any, the end of the body is the end of the shard.

    Raises:
        ShardFailed: the shard has ended as many processes as it may.
    """
    me = os.getpid(), socket.gethostname()
    attempt, most = ray.get(board.begin.remote(stage, shard, *me))
    if attempt > most:
        board.end.remote(stage, *me)
        raise ShardFailed(
            f"shard {shard} ended {most} processes of stage `{stage}` (run.max_attempts): lost nodes, out of memory, "
            f"or a request that crashes them; its requests are in shards/{shard:06}.parquet of the run, the processes' "
            "logs in /tmp/ray/session_latest/logs; finished shards are kept"
        )
    figures: dict[str, Any] = {}
    try:
        yield figures
    except Exception as error:
        _end(board, stage, *me, error=type(error).__name__)
        raise
    _end(board, stage, *me, **figures)


def _end(board: ActorHandle, *arguments: Any, **outcome: Any) -> None:
    """Returns when the board knows, or does not answer: the driver is told of a shard before it sees the receipt."""
    ray.wait([board.end.remote(*arguments, **outcome)], timeout=PATIENCE_S)


@contextmanager
def told(board: ActorHandle, tell: Callable[[Sequence[Event]], None] | None) -> Iterator[None]:
    """Tell what happens to the shards while the body runs; all of it, unless Ray does not answer.

    Args:
        tell: called in another thread; None leaves the board alone.
    """
    if tell is None:
        yield
        return
    finished = threading.Event()
    teller = threading.Thread(target=_tell, args=(board, tell, finished), daemon=True, name="events")
    teller.start()
    try:
        yield
    finally:
        finished.set()
        teller.join(2 * PATIENCE_S)


def _tell(board: ActorHandle, tell: Callable[[Sequence[Event]], None], finished: threading.Event) -> None:
    last = False
    while not last:
        last = finished.wait(TELL_S)
        try:
            events = ray.get(board.take.remote(), timeout=PATIENCE_S)
        except ray.exceptions.RayError:  # the watchdog says so
            continue
        if events:
            tell(events)
