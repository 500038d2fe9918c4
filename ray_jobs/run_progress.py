"""A run's open shards finished on Ray, while the terminal or the log shows how far the run is."""

import logging
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing

from tqdm import tqdm

from optirag_core.config.settings import Settings
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.totals import Totals
from optirag_core.runs.work import Work
from ray_jobs.run_events import Event, RunEvents
from ray_jobs.run_meters import RunMeters
from ray_jobs.session import ray_session
from ray_jobs.shard_stream import Stage, stream

log = logging.getLogger(__name__)
LOG_EVERY_S = 10.0
"""Off a terminal, progress is a line in the log."""


def finish(
    work: Work, build: Stage, score: Stage, settings: Settings, events: RunEvents | None = None
) -> Generator[Receipt]:
    """Finish the shards that are left, in whatever order they end.

    Ray runs until the last receipt, or until the generator is closed; it does not start where no shard is left.

    Args:
        events: are told that the run is begun or resumed, and what happens to its shards.

    Raises:
        OptiragError: as in `stream`.
    """
    events = events or RunEvents()
    _tell_begin(work, events)
    if not work.left:
        return
    with ray_session(settings.ray), closing(RunProgress(work.pairs, work.resumed)) as progress:
        meters = RunMeters(work)

        def tell(happened: Sequence[Event]) -> None:
            events.add(happened)
            meters.failed(happened)

        with closing(stream(work.left, build, score, settings, tell)) as receipts:
            for receipt in receipts:
                progress.add(receipt)
                meters.received()
                yield receipt


def _tell_begin(work: Work, events: RunEvents) -> None:
    if work.committed:
        return
    shards = {"shards": work.num_shards, "shards_left": len(work.left)}
    if work.resumed:
        log.info("%s of %s pairs are finished already", f"{work.resumed:,}", f"{work.pairs:,}")
        events.tell("run_resumed", pairs=work.pairs, pairs_finished=work.resumed, **shards)
    else:
        events.tell("run_begun", pairs=work.pairs, **shards)


class RunProgress:
    """Pairs done and asked, pairs per second, mean exit layer, rejects and time left: a bar, or lines in the log."""

    def __init__(self, pairs: int, resumed: int) -> None:
        self._bar = tqdm(desc="score", unit="pair", total=pairs, initial=resumed, disable=not sys.stderr.isatty())
        self._totals = Totals()
        self._pairs, self._resumed = pairs, resumed
        self._started = self._logged = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        self._totals.add(receipt)
        shown = {"layer": f"{self._totals.mean_exit_layer:.2f}", "rejects": self._totals.rejected}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(receipt.scored + receipt.rejected)
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            rate = max(self._totals.pairs, 1) / (now - self._started)
            done = self._resumed + self._totals.pairs
            log.info(
                "%s of %s pairs, %.1f pairs/s, mean exit layer %.2f, %d rejected, %.0f s left",
                f"{done:,}", f"{self._pairs:,}", rate, self._totals.mean_exit_layer, self._totals.rejected,
                (self._pairs - done) / rate,
            )  # fmt: skip

    def close(self) -> None:
        self._bar.close()
