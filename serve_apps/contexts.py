"""The context builder: histories, similar users, evidence and prompt tokens of a call, with all events until now.

It makes prompts of the version that is asked for: while an update rolls, old scorers and new ones answer.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Self

from optirag_core.data.dataset import read_info
from optirag_core.engine.loading import load_tokenizer
from optirag_core.errors import OptiragError
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog, Stored
from optirag_core.inference.online import KnownUser, OnlineContexts
from optirag_core.storage.base import open_storage
from serve_apps.calls import Call, Context
from serve_apps.meters import ContextMeters
from serve_apps.version import Version

log = logging.getLogger(__name__)

MAX_VERSIONS = 2
"""That a builder holds: the one that goes and the one that comes."""

IDLE_S = 300.0
"""A version that is not the builder's own is closed when nobody has asked for it so long: the update has ended."""


@dataclass
class _Opened:
    """A version's contexts, which follow the log."""

    contexts: OnlineContexts
    log: EventLog
    asked: float = field(default_factory=time.monotonic)  # the last time

    @classmethod
    def of(cls, version: Version) -> Self:
        settings, artifacts = version.open()
        contexts = OnlineContexts.open(settings, artifacts, load_tokenizer(artifacts["llm"].path))
        storage = open_storage(settings.workspace, settings.storage)
        events = EventLog(storage, contexts.apply, start=read_info(artifacts["dataset"].path).get("events_until", 0))
        events.read()
        return cls(contexts, events)


class ContextBuilder:
    """A replica; all its methods are coroutines."""

    def __init__(self, version: Version) -> None:
        self._own = version.key
        self._opened = {version.key: _Opened.of(version)}
        self._poll_s = version.settings["serving"]["events_poll_s"]
        self._meters = ContextMeters()
        self._opening = ThreadPoolExecutor(1, "opening")  # of its own: events are stored meanwhile
        self._ends = threading.Event()
        threading.Thread(target=self._follow, name="events", daemon=True).start()

    async def build(self, call: Call, version: Version) -> Context:
        """The prompts of one call, by the version that will score them.

        Raises:
            ArtifactError: the version cannot be opened.
        """
        opened = self._opened.get(version.key)
        if opened is None:
            opened = await asyncio.wrap_future(self._opening.submit(self._open, version))
        opened.asked = time.monotonic()
        await _reach(opened.log, call.position)
        return _context(opened.contexts, call)

    async def append(self, events: Sequence[UserEvent]) -> tuple[list[Stored], int]:
        """Store events; what is returned is on disk, and counts from the next call on.

        Returns:
            What became of each, and the log's position.
        """
        opened = self._opened[self._own]
        outcomes = await asyncio.to_thread(opened.log.append, events)
        return outcomes, opened.log.position

    async def user(self, user_id: str, position: int) -> KnownUser:
        """History and similar users, as a prompt would show them.

        Args:
            position: of the event log: what lies before it counts.
        """
        await _reach(self._opened[self._own].log, position)
        return self._mine.user(user_id)

    async def users(self, query: str, limit: int) -> list[str]:
        """Ids that begin like this."""
        return self._mine.users(query, limit)

    async def items(self, query: str, limit: int) -> list[tuple[str, str]]:
        """Ids and titles of items with this in their title."""
        return await asyncio.to_thread(self._mine.items, query, limit)  # 1 M titles take long

    async def fitting(self, item_ids: Sequence[str]) -> tuple[bool, list[str]]:
        """Whether the data has times, and those of the items that cannot be shown."""
        return self._mine.timed, [item_id for item_id in item_ids if not self._mine.knows_item(item_id)]

    def check_health(self) -> None:
        """Serve asks; an error ends the replica."""
        if self._ends.is_set():
            raise OptiragError("the thread that follows the event log has stopped")

    @property
    def _mine(self) -> OnlineContexts:
        return self._opened[self._own].contexts

    def _open(self, version: Version) -> _Opened:
        if version.key not in self._opened:
            while len(self._opened) >= MAX_VERSIONS:
                self._opened.pop(next(key for key in self._opened if key != self._own))
            self._opened[version.key] = _Opened.of(version)
        return self._opened[version.key]

    def _follow(self) -> None:
        """Apply what other replicas have stored, and close what an update has left behind."""
        try:
            while not self._ends.wait(self._poll_s):
                for key, opened in tuple(self._opened.items()):
                    if key != self._own and time.monotonic() - opened.asked > IDLE_S:
                        self._opened.pop(key, None)
                    elif _read(opened.log) and key == self._own:
                        self._meters.read()
        finally:
            self._ends.set()


async def _reach(events: EventLog, position: int) -> None:
    """Read the log at least as far as somebody else has."""
    if events.position < position:
        await asyncio.to_thread(events.read)


def _read(events: EventLog) -> bool:
    """Whether all events until now are known."""
    try:
        events.read()
    except OptiragError as error:  # the place is out of reach for now: what is known goes on being served
        log.warning("the event log cannot be read at segment %d: %s", events.position, type(error).__name__)
        return False
    return True


def _context(contexts: OnlineContexts, call: Call) -> Context:
    started = time.perf_counter()
    request = call.request
    if call.num_candidates:
        request = replace(request, item_ids=contexts.candidates(request, call.num_candidates))
    assembled = contexts.assemble(request)
    prompt = assembled.prompt
    titles = {item_id: contexts.title(item_id) for item_id in assembled.candidates}
    return Context(
        group=prompt.group if prompt else None,
        user_id=request.user_id,
        asked=request.item_ids,
        candidates=assembled.candidates,
        rejects=assembled.rejects,
        titles=titles,
        cold_start=assembled.cold_start,
        similarities=[neighbour.similarity for neighbour in assembled.similar_users],
        num_similar_users=prompt.num_similar_users if prompt else 0,
        dropped_entries=prompt.num_dropped_entries if prompt else 0,
        dropped_users=prompt.num_dropped_users if prompt else 0,
        unknown_entries=assembled.num_unknown_entries,
        seconds=time.perf_counter() - started,
    )
