"""What a scoring run counts for Prometheus, as `ray_optirag_*` on Ray's metrics ports: docs/observability.md.

They are for watching: a process that dies takes its last second along, and a shard that is scored twice counts twice.
What a run has scored is in its receipts.

The label `run` multiplies nothing: every process serves one run, and Ray labels each series with its process.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.util import metrics

from optirag_core.runs.work import Work
from ray_jobs.run_events import Event

SECONDS = [1, 3, 10, 30, 100, 300, 1000]
"""Bounds of the shard durations' histogram."""
INTERVAL_S = 1.0
"""Between two looks at an engine's queues; Ray exports every 10 s."""


class ScoringMeters:
    """Meters of a scorer's process."""

    def __init__(self, run: str, exit_layers: Sequence[int]) -> None:
        def counter(name: str, says: str, *labels: str) -> metrics.Counter:
            return metrics.Counter(f"optirag_{name}", says, ("run", *labels)).set_default_tags({"run": run})

        self._pairs = counter("pairs", "pairs by outcome: scored or a reject's code", "outcome")
        self._exits = counter("exits", "scored pairs by exit layer", "layer")
        # Not a histogram's sum: Ray makes that of its buckets' middles.
        self._depth = counter("exit_depth", "exit layers of the scored pairs, summed")
        self._busy = counter("scorer_seconds", "that scorers computed")
        self._gflop = counter("useful_gflop", "that the scored pairs needed, in 10^9 FLOP")
        self._seconds = metrics.Histogram("optirag_shard_seconds", "of scoring and writing a shard", SECONDS, ("run",))
        self._seconds.set_default_tags({"run": run})
        self._queue = metrics.Gauge("optirag_queue_tokens", "that wait in the engine, by depth", ("run", "layer"))
        self._queue.set_default_tags({"run": run})
        self._layers, self._next_s = tuple(exit_layers), 0.0

    def waiting(self, tokens: Mapping[int, int]) -> None:
        """Note how many prompt tokens wait in the engine, by the layer behind which they do."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + INTERVAL_S
            self._wait(tokens)

    def add(self, counts: Mapping[str, Any], seconds: float) -> None:
        """Count a shard.

        Args:
            counts: as in its receipt.
            seconds: that it took, scoring and writing.
        """
        exits = {int(layer): count for layer, count in counts["exits"].items()}
        for outcome, count in (Counter(counts["rejects"]) + Counter(scored=sum(exits.values()))).items():
            self._pairs.inc(count, {"outcome": outcome})
        for layer, count in exits.items():
            self._exits.inc(count, {"layer": str(layer)})
        sums = (
            (self._depth, sum(layer * count for layer, count in exits.items())),
            (self._busy, counts["scorer_seconds"]),
            (self._gflop, counts["useful_gflop"]),
        )
        for counter, amount in sums:
            if amount:  # Ray refuses 0
                counter.inc(amount)
        self._seconds.observe(seconds)
        self._wait({})  # a scorer between two shards holds nothing

    def _wait(self, tokens: Mapping[int, int]) -> None:
        for layer in self._layers:
            self._queue.set(tokens.get(layer, 0), {"layer": str(layer)})


class RunMeters:
    """Meters of a run's driver; they are there as long as it is."""

    def __init__(self, work: Work) -> None:
        self._shards = metrics.Gauge("optirag_run_shards", "shards of the run, finished or left", ("run", "state"))
        self._received = metrics.Gauge(
            "optirag_last_receipt_timestamp_seconds", "Unix time of the last receipt, before it of the start", ("run",)
        )
        self._failures = metrics.Counter(
            "optirag_shard_failures", "processes that died or failed at a shard", ("run", "stage")
        )
        for meter in (self._shards, self._received, self._failures):
            meter.set_default_tags({"run": work.name})
        self._left, self._finished = len(work.left), work.num_shards - len(work.left)
        self._show()

    def received(self) -> None:
        """Note a further receipt."""
        self._left, self._finished = self._left - 1, self._finished + 1
        self._show()

    def failed(self, events: Iterable[Event]) -> None:
        """Count the failures among events."""
        for event in events:
            if event["event"] == "shard_failed":
                self._failures.inc(1, {"stage": event["stage"]})

    def _show(self) -> None:
        self._shards.set(self._finished, {"state": "finished"})
        self._shards.set(self._left, {"state": "left"})
        self._received.set(time.time())
