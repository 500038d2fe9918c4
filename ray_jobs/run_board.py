"""What every stage of a scoring run is at, for the driver's watchdog."""

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle

from optirag_core.errors import ShardFailed

STAGES = ("build", "score")
MAX_ATTEMPTS = 3
"""Of a shard in one stage: Ray would give a shard that always kills its process to the next one for ever."""
PATIENCE_S = 10.0
"""A board that does not answer within it lives on a Ray that does not answer."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that a process has begun and not ended."""

    shard: int
    pid: int
    host: str
    began_s: float  # of the board's clock


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)  # what it forgets with its node only delays a verdict
class RunBoard:
    """Shards begun and not ended, by stage and process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, str], OpenShard] = {}
        self._ended = dict.fromkeys(STAGES, 0)
        self._last = ""  # the scorer that ended a shard last
        self._attempts: Counter[tuple[str, int]] = Counter()

    def begin(self, stage: str, shard: int, pid: int, host: str) -> int:
        """How often the shard has now been begun in this stage."""
        kept = {key: entry for key, entry in self._open.items() if (key[0], entry.shard) != (stage, shard)}
        self._open = kept  # a process that died at the shard ended nothing
        self._open[stage, pid, host] = OpenShard(shard, pid, host, time.monotonic())
        self._attempts[stage, shard] += 1
        return self._attempts[stage, shard]

    def end(self, stage: str, pid: int, host: str) -> None:
        self._open.pop((stage, pid, host), None)
        self._ended[stage] += 1
        if stage == STAGES[-1]:
            self._last = f", the last in process {pid} on {host}"

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
def noted(board: ActorHandle, stage: str, shard: int) -> Iterator[None]:
    """The board says that this process is at the shard while the body runs.

    Raises:
        ShardFailed: the shard has ended as many processes as it may.
    """
    me = os.getpid(), socket.gethostname()
    attempt = ray.get(board.begin.remote(stage, shard, *me))
    try:
        if attempt > MAX_ATTEMPTS:
            raise ShardFailed(
                f"shard {shard} ended {MAX_ATTEMPTS} processes of stage `{stage}`: out of memory, or a request that "
                f"crashes them; its requests are in shards/{shard:06}.parquet of the run, the processes' logs in "
                "/tmp/ray/session_latest/logs; finished shards are kept"
            )
        yield
    finally:
        board.end.remote(stage, *me)
