"""What the endpoint counts for Prometheus, as `ray_optirag_serving_*` on Ray's metrics ports: docs/observability.md."""

import time
from collections import Counter

from ray.util import metrics

from serve_apps.calls import Context, Reply

LATENCY_S = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
CALLS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


PREFIX = "optirag_serving_"


class IngressMeters:
    """Meters of an ingress replica."""

    def __init__(self) -> None:
        self._pairs = metrics.Counter(f"{PREFIX}pairs", "pairs by outcome: scored or a problem's code", ("outcome",))
        self._cold = metrics.Counter(f"{PREFIX}cold_starts", "calls of users without similar users")
        self._context = metrics.Histogram(f"{PREFIX}context_seconds", "until a call's prompts were made", LATENCY_S)
        self._requests = metrics.Counter(f"{PREFIX}requests", "calls by outcome: answered or a problem", ("outcome",))
        self._seconds = metrics.Histogram(f"{PREFIX}request_seconds", "of an answered call, in the ingress", LATENCY_S)

    def answered(self, context: Context, seconds: float) -> None:
        """Count a call that got its scores.

        Args:
            seconds: that it took, prompts and scores.
        """
        self._requests.inc(1, {"outcome": "answered"})
        self._seconds.observe(seconds)
        if context.cold_start:
            self._cold.inc()
        outcomes = Counter(reject.error_code for reject in context.rejects) + Counter(scored=len(context.candidates))
        for outcome, count in outcomes.items():
            self._pairs.inc(count, {"outcome": outcome})
        self._context.observe(context.seconds)

    def unanswered(self, code: str) -> None:
        """Count a call that got a problem."""
        self._requests.inc(1, {"outcome": code})


class ContextMeters:
    """Meters of a context builder."""

    def __init__(self) -> None:
        self._read = metrics.Gauge(
            f"{PREFIX}events_read_timestamp_seconds", "Unix time when the event log was last read to its end"
        )

    def read(self) -> None:
        """Note that all events until now are known."""
        self._read.set(time.time())


class ScorerMeters:
    """Meters of a scorer replica."""

    def __init__(self) -> None:
        self._calls = metrics.Counter(f"{PREFIX}calls", "calls by policy, or refused", ("outcome",))
        self._exits = metrics.Counter(f"{PREFIX}exits", "scored pairs by exit layer", ("layer",))
        self._queue = metrics.Histogram(f"{PREFIX}queue_seconds", "until the engine took a call in", LATENCY_S)
        self._engine = metrics.Histogram(f"{PREFIX}engine_seconds", "of a call in the engine", LATENCY_S)
        self._load = metrics.Histogram(f"{PREFIX}calls_in_flight", "calls in the scorer when one came", CALLS)

    def answered(self, reply: Reply) -> None:
        """Count a call that got its scores."""
        self._calls.inc(1, {"outcome": reply.policy})
        for layer, count in Counter(pair.exit_layer for pair in reply.scores).items():
            self._exits.inc(count, {"layer": str(layer)})
        self._queue.observe(reply.queue_s)
        self._engine.observe(reply.engine_s)

    def refused(self) -> None:
        """Count a call that got none."""
        self._calls.inc(1, {"outcome": "refused"})

    def load(self, calls: int) -> None:
        """Note how many calls are there with the one that has just come."""
        self._load.observe(calls)
