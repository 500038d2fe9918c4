"""How far a training in Ray workers is, on the driver: a bar or lines in the log, and every point to the trackers."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from tqdm import tqdm

log = logging.getLogger(__name__)
INTERVAL_S = 0.5
"""A bar moves this often, and a worker says no more often how far it is: that costs it nothing."""
CLOSE_S = 10.0
"""A board or a tracking system that does not answer within it keeps no training that has ended."""
LOG_EVERY_S = 10.0
"""Off a terminal, progress is a line in the log."""


@dataclass(frozen=True)
class Progress:
    """A step or epoch that is done."""

    done: int
    total: int
    figures: dict[str, float] = field(default_factory=dict)
    tokens: int = 0  # that it took


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)  # what it forgets with its node is only not seen
class ProgressBoard:
    """Holds what was done until the driver takes it."""

    def __init__(self) -> None:
        self._points: list[Progress] = []

    def write(self, points: Sequence[Progress]) -> None:
        self._points += points

    def take(self) -> list[Progress]:
        points, self._points = self._points, []
        return points


class Reporter:
    """The worker's side; does nothing without a board (ranks other than 0)."""

    def __init__(self, board: ActorHandle | None) -> None:
        self._board = board
        self._points: list[Progress] = []
        self._next_s = 0.0

    def __call__(self, done: int, total: int, *, tokens: int = 0, **figures: float | None) -> None:
        if self._board is None:
            return
        known = {name: value for name, value in figures.items() if value is not None}
        self._points.append(Progress(done, total, known, tokens))
        if time.monotonic() >= self._next_s:
            self._write(self._board)

    def close(self) -> None:
        """Returns when the board has everything, or does not answer: nothing else waits for it."""
        if self._board is not None:
            ray.wait([self._write(self._board)], timeout=CLOSE_S)

    def _write(self, board: ActorHandle) -> ray.ObjectRef:
        points, self._points = self._points, []
        self._next_s = time.monotonic() + INTERVAL_S
        return board.write.remote(points)


@contextmanager
def progress_shown(name: str, unit: str, track: Callable[[Sequence[Progress]], None]) -> Iterator[ActorHandle]:
    """Show progress while the body runs.

    Args:
        track: is given every point, in the order in which they were written.

    Yields:
        The board that a worker's `Reporter` writes to.
    """
    board = ProgressBoard.remote()  # type: ignore[attr-defined]  # Ray adds it
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, finished, name, unit, track), daemon=True)
    watcher.start()
    try:
        yield board
    finally:
        finished.set()
        watcher.join(CLOSE_S)
        ray.kill(board)


def _watch(
    board: ActorHandle, finished: threading.Event, name: str, unit: str, track: Callable[[Sequence[Progress]], None]
) -> None:
    with closing(ShownProgress(name, unit)) as shown:
        while True:
            last = finished.wait(INTERVAL_S)
            if points := ray.get(board.take.remote()):
                shown.add(points)
                track(points)
            if last:
                return


class ShownProgress:
    """Steps done and asked, losses, tokens per second and time left: a bar, or lines in the log."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._bar = tqdm(desc=name, unit=unit, mininterval=INTERVAL_S, disable=not sys.stderr.isatty())
        self._figures: dict[str, float] = {}
        self._done: int | None = None
        self._first, self._tokens = 0, 0
        self._first_s = self._logged_s = time.monotonic()

    def add(self, points: Sequence[Progress]) -> None:
        last, now = points[-1], time.monotonic()
        if self._done is None or points[0].done <= self._done:  # the first ones, or a worker went back to a checkpoint
            self._first, self._first_s, self._tokens = last.done, now, 0
            self._bar.reset(last.total)
            self._bar.n = self._bar.initial = self._bar.last_print_n = last.done
        else:
            self._tokens += sum(point.tokens for point in points)
        self._done = last.done
        for point in points:
            self._figures |= point.figures
        figures = [f"{name} {value:.4f}" for name, value in self._figures.items()]
        if self._tokens:
            figures.append(f"{self._tokens / (now - self._first_s):,.0f} tokens/s")
        self._bar.set_postfix_str(", ".join(figures), refresh=False)
        self._bar.update(last.done - self._bar.n)
        if self._bar.disable and now - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now
            if last.done > self._first:
                left_s = (last.total - last.done) * (now - self._first_s) / (last.done - self._first)
                figures.append(f"{tqdm.format_interval(left_s)} left")
            log.info("%s: %s %d of %d, %s", self._name, self._unit, last.done, last.total, ", ".join(figures))

    def close(self) -> None:
        self._bar.close()
