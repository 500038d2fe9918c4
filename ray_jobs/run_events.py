"""What happens in a scoring run, one JSON line per event, for a log system beside the lines for people.

{"event": "shard_finished", "time": "2026-11-22T01:02:03.456+00:00", "host": "worker-7", "run": "2026-11-22",
 "run_id": "5f0c...", "pid": 812, "shard": 12, "attempt": 1, "pairs": 2000, "scored": 1998, "rejected": 2, ...}

Names of runs, hosts and kinds of errors; never an id of a user or an item, a title, a prompt or an error's text.
"""

import json
import logging
import socket
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from optirag_core.errors import ConfigError

LOGGER = "optirag.events"
STREAMS = ("stdout", "stderr")

log = logging.getLogger(LOGGER)

Event = Mapping[str, Any]
"""An event's fields, JSON values; `event` makes it."""


def event(name: str, **fields: Any) -> Event:
    """What has happened now in this process, or on the `host` that is among the fields."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"event": name, "time": moment, "host": socket.gethostname(), **fields}


class RunEvents:
    """The events of one run; a driver that ends with an error tells `run_stopped`."""

    def __init__(self, target: str | None = None, *, run: str = "", run_id: str = "") -> None:
        """
        Args:
            target: `stdout`, `stderr` or a file, which is appended to; None writes nothing.

        Raises:
            ConfigError: the file cannot be written to.
        """
        self._names = {"run": run, "run_id": run_id}
        self._handler = _handler(target) if target else None

    def tell(self, name: str, **fields: Any) -> None:
        """Write an event of the driver."""
        self.add([event(name, **fields)])

    def add(self, events: Iterable[Event]) -> None:
        """Write events of the run's processes."""
        for each in events if self._handler else ():
            log.info("%s", json.dumps({**each, **self._names}))

    def __enter__(self) -> Self:
        if self._handler:
            log.setLevel(logging.INFO)
            log.propagate = False
            log.addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.tell("run_stopped", error=kind.__name__)
        if self._handler:
            log.removeHandler(self._handler)
            self._handler.close()


def _handler(target: str) -> logging.Handler:
    """Of lines as they are, whatever this process's other handlers add to theirs."""
    if target in STREAMS:
        return logging.StreamHandler(getattr(sys, target))
    try:
        return logging.FileHandler(target, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"tracking.events {target} cannot be written to: {error}") from None
