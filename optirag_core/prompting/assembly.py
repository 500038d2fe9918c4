"""Requests -> prompts: histories, similar users and profiles meet the builder here, and bad pairs are set aside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optirag_core.config import PromptSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.rows import Rows
from optirag_core.errors import PromptTooLong
from optirag_core.prompting.builder import Context, Prompt, PromptBuilder
from optirag_core.prompting.history import Histories


class Neighbour(Protocol):
    """A similar user."""

    user_id: str
    similarity: float  # cosine


class Neighbours(Protocol):
    """Finds similar users; `retrieval.index.UserIndex` does."""

    def __contains__(self, user_id: str) -> bool:
        """Whether the user has training interactions."""

    def similar_batch(self, user_ids: Sequence[str], k: int) -> list[list[Neighbour]]:
        """Up to k neighbours of each user, most similar first; none for a user without training interactions."""


@dataclass(frozen=True)
class Request:
    """One user's candidates."""

    user_id: str
    item_ids: Sequence[str | None]
    as_of: int | None = None  # microseconds since 1970, UTC
    as_of_position: int | None = None


@dataclass(frozen=True)
class Reject:
    """A pair that cannot be scored, and why."""

    item_id: str | None
    error_code: str
    error: str


@dataclass(frozen=True)
class Assembled:
    """A request's prompts; `candidates` are in the order of the group's suffixes."""

    prompt: Prompt | None  # None when no candidate is left
    candidates: Sequence[str]
    rejects: Sequence[Reject]
    similar_users: Sequence[Neighbour]  # most similar first, as retrieved
    cold_start: bool


class PromptAssembler:
    """Turns requests into prompts with one data set, one retriever and one tokenizer."""

    def __init__(
        self, dataset: Dataset, neighbours: Neighbours, builder: PromptBuilder, settings: PromptSettings, *,
        num_similar_users: int,
    ) -> None:  # fmt: skip
        self._histories = Histories(dataset.interactions)
        self._users = Rows(dataset.users, "user_id")
        self._neighbours = neighbours
        self._builder = builder
        self._settings = settings
        self._num_similar_users = num_similar_users

    def assemble(self, requests: Sequence[Request], *, similar: bool = True) -> list[Assembled]:
        """Prompts of many requests; a pair that cannot be scored becomes a `Reject`, never an exception.

        Args:
            similar: False leaves out the similar users, as for a user without training interactions.
        """
        number = self._num_similar_users if similar else 0
        found = self._neighbours.similar_batch([request.user_id for request in requests], number)
        return [self._assemble(request, users) for request, users in zip(requests, found, strict=True)]

    def _assemble(self, request: Request, similar_users: Sequence[Neighbour]) -> Assembled:
        candidates, rejects = self._usable(request.item_ids)
        if request.as_of is not None and not self._histories.timed:  # ignoring it could show what came later
            reason = "the request has as_of, but not every interaction has an event_time: leave as_of null"
            rejects += [Reject(item_id, "as_of_without_times", reason) for item_id in candidates]
            candidates = []
        prompt = None
        if candidates:
            try:
                prompt = self._builder.build(self._context(request, candidates, similar_users), candidates)
            except PromptTooLong as error:
                rejects += [Reject(item_id, "prompt_too_long", str(error)) for item_id in candidates]
                candidates = []
        cold_start = request.user_id not in self._neighbours
        return Assembled(prompt, candidates, rejects, similar_users, cold_start)

    def _context(self, request: Request, candidates: Sequence[str], similar_users: Sequence[Neighbour]) -> Context:
        history = self._histories.of_target(
            request.user_id,
            as_of=request.as_of,
            as_of_position=request.as_of_position,
            hide=set(candidates),
            limit=self._settings.max_history,
        )
        limit = self._settings.max_similar_history
        ids = [neighbour.user_id for neighbour in similar_users]
        shown = [(user, self._histories.of_similar(user, as_of=request.as_of, limit=limit)) for user in ids]
        return Context(
            user=self._profile(request.user_id),
            history=history,
            similar=[(self._profile(user), entries) for user, entries in shown if entries],
        )

    def _profile(self, user_id: str) -> Mapping[str, Any]:
        return self._users.get(user_id) or self._users.blank(user_id)

    def _usable(self, item_ids: Sequence[str | None]) -> tuple[list[str], list[Reject]]:
        asked: Counter[str | None] = Counter()
        candidates: list[str] = []
        rejects: list[Reject] = []
        for item_id in item_ids:
            asked[item_id] += 1
            if item_id is None:
                rejects.append(Reject(item_id, "null_item", "item_id is null"))
            elif asked[item_id] > 1:
                rejects.append(Reject(item_id, "duplicate_pair", f"item {item_id!r} stands in the request before"))
            elif not self._builder.knows(item_id):
                rejects.append(Reject(item_id, "unknown_item", f"item {item_id!r} is not in the items table"))
            else:
                candidates.append(item_id)
        return candidates, rejects


def requests_from(table: Any) -> list[Request]:
    """Rows of a requests table (`data.schema.REQUESTS`)."""
    columns = zip(
        table["user_id"].to_pylist(),
        table["item_ids"].to_pylist(),
        table["as_of"].cast("int64").to_pylist(),
        table["as_of_position"].to_pylist(),
        strict=True,
    )
    return [Request(*row) for row in columns]
