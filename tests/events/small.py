"""Events of tests, and a process that appends them until it is killed.

    python -m tests.events.small URI NAME NUM_THREADS NUM_CALLS      prints each acknowledged event_id and its outcome

It posts its events in calls of 2; every second call also holds an event that all processes send.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from optirag_core.config.run import StorageSettings
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog
from optirag_core.storage.base import Storage, open_storage


def event(event_id: str, **changes: object) -> UserEvent:
    values = {"user_id": "u", "item_id": "i", "rating": 4.0, "time": 1_000_000}
    return UserEvent(event_id, **{**values, **changes})


class Collected:
    """An `apply` that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[UserEvent] = []

    def __call__(self, events: list[UserEvent]) -> None:
        self.events.extend(events)

    @property
    def ids(self) -> list[str]:
        return [event.event_id for event in self.events]


def collecting(storage: Storage, start: int = 0) -> tuple[EventLog, Collected]:
    collected = Collected()
    return EventLog(storage, collected, start), collected


def call_of(name: str, number: int) -> list[UserEvent]:
    """One call's events."""
    own = event(f"{name}-{number}", user_id=name, item_id="ü\n\u2028")
    return [own, event(f"shared-{number}")] if number % 2 else [own]


def main() -> None:
    uri, name, num_threads, num_calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    log = EventLog(open_storage(uri, StorageSettings()), lambda events: None)
    printing = threading.Lock()
    print("ready", flush=True)
    sys.stdin.readline()  # all begin together

    def post(number: int) -> None:
        events = call_of(name, number)
        outcomes = log.append(events)
        with printing:
            for sent, outcome in zip(events, outcomes, strict=True):
                print(sent.event_id, outcome.value, flush=True)

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(post, range(num_calls)))


if __name__ == "__main__":
    main()
