"""A progress bar on the driver's terminal for work that runs in a Ray worker."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from tqdm import tqdm

INTERVAL_S = 0.5
"""A bar moves this often, and a worker says no more often how far it is: that costs it nothing."""


@dataclass(frozen=True)
class Progress:
    """How far the work is."""

    done: int
    total: int
    figures: dict[str, float] = field(default_factory=dict)


@ray.remote(num_cpus=0)
class ProgressBoard:
    """Holds how far the work was last said to be."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def write(self, progress: Progress) -> None:
        self._progress = progress

    def read(self) -> Progress | None:
        return self._progress


class Reporter:
    """The worker's side; does nothing without a board (ranks other than 0)."""

    def __init__(self, board: ActorHandle | None) -> None:
        self._board = board
        self._next_s = 0.0

    def __call__(self, done: int, total: int, **figures: float | None) -> None:
        now = time.monotonic()
        if self._board is not None and (now >= self._next_s or done == total):
            self._next_s = now + INTERVAL_S
            known = {name: value for name, value in figures.items() if value is not None}
            self._board.write.remote(Progress(done, total, known))


@contextmanager
def progress_bar(name: str, unit: str) -> Iterator[ActorHandle]:
    """Show a bar while the body runs.

    Yields:
        The board that a worker's `Reporter` writes to.
    """
    board = ProgressBoard.remote()
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, finished, name, unit), daemon=True)
    watcher.start()
    try:
        yield board
    finally:
        finished.set()
        watcher.join()
        ray.kill(board)


def _watch(board: ActorHandle, finished: threading.Event, name: str, unit: str) -> None:
    with tqdm(desc=name, unit=unit, mininterval=INTERVAL_S) as bar:
        while True:
            last = finished.wait(INTERVAL_S)
            progress = ray.get(board.read.remote())
            if progress is not None:
                bar.total = progress.total
                bar.set_postfix({key: f"{value:.4f}" for key, value in progress.figures.items()}, refresh=False)
                bar.update(progress.done - bar.n)
            if last:
                return
