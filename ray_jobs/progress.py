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
"""A bar moves this often; a worker reports no more often, so reporting costs it nothing."""


@dataclass(frozen=True)
class Report:
    """How far the work is."""

    done: int
    total: int
    figures: dict[str, float] = field(default_factory=dict)


@ray.remote(num_cpus=0)
class ProgressBoard:
    """Holds the newest report."""

    def __init__(self) -> None:
        self._report: Report | None = None

    def write(self, report: Report) -> None:
        self._report = report

    def read(self) -> Report | None:
        return self._report


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
            self._board.write.remote(Report(done, total, known))


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
            report = ray.get(board.read.remote())
            if report is not None:
                bar.total = report.total
                bar.set_postfix({key: f"{value:.4f}" for key, value in report.figures.items()}, refresh=False)
                bar.update(report.done - bar.n)
            if last:
                return
