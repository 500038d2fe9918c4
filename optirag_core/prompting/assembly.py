"""Requests -> prompts: histories, similar users and profiles meet the builder here, and bad pairs are set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from optirag_core.config.data import PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.data.schema import PAIRS
from optirag_core.errors import PromptTooLong
from optirag_core.evidence.model import PairEvidence
from optirag_core.evidence.words import ItemWords, item_words
from optirag_core.prompting.builder import Context, Prompt, PromptBuilder

MAX_SHOWN = 100
"""Characters of an id that a message shows."""


AskedPair = tuple[str | None, str | None]
"""user_id, item_id"""


class Neighbour(Protocol):
    """A similar user."""

    @property
    def user_id(self) -> str: ...

    @property
    def similarity(self) -> float:
        """The cosine of the angle between both users' vectors."""


class Neighbours(Protocol):
    """Finds similar users; `retrieval.index.UserIndex` does."""

    def __contains__(self, user_id: str | None) -> bool:
        """Whether the user has training interactions."""

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> Sequence[Sequence[Neighbour]]:
        """Up to k neighbours of each user, most similar first; none for a user without training interactions."""


@dataclass(frozen=True)
class HistoryEntry:
    """An interaction that only the request tells of."""

    item_id: str
    rating: float
    time: int | None = None  # microseconds since 1970, UTC; None: before the moment that is asked about


@dataclass(frozen=True)
class Request:
    """One user's candidates."""

    user_id: str | None
    item_ids: Sequence[str | None] | None  # null as a whole: no pairs
    as_of: int | None = None  # microseconds since 1970, UTC
    as_of_position: int | None = None
    history: Sequence[HistoryEntry] = ()  # oldest first, behind what is known; read by `inference.online`


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
    num_unknown_entries: int = 0  # of the request's history, left out as their items are not in the items table


class PromptAssembler:
    """Turns requests into prompts with one data set, one retriever and one tokenizer."""

    def __init__(
        self, histories: Histories, users: Rows, neighbours: Neighbours, builder: PromptBuilder,
        settings: PromptSettings, *, num_similar_users: int, evidence: PairEvidence | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            evidence: put on every group, for the heads that read it, and said in the prompts of a builder that says it.
        """
        self._histories = histories
        self._users = users
        self._neighbours = neighbours
        self._builder = builder
        self._settings = settings
        self._num_similar_users = num_similar_users
        self._evidence = evidence

    def assemble(self, requests: Sequence[Request], *, similar: bool = True) -> list[Assembled]:
        """Prompts of many requests; a pair that cannot be scored becomes a `Reject`, never an exception.

        Args:
            requests: all those of a user come in one call, so that a pair asked twice is seen.
            similar: False leaves out the similar users, as for a user without training interactions.
        """
        number = self._num_similar_users if similar else 0
        found = self._neighbours.similar_batch([request.user_id for request in requests], number)
        asked: set[AskedPair] = set()
        usable = [self._usable(request, asked) for request in requests]
        known = self._known(requests, [candidates for candidates, _ in usable])
        return [
            self._assemble(request, users, *parts, of)
            for request, users, parts, of in zip(requests, found, usable, known, strict=True)
        ]

    def _known(self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]) -> Sequence[np.ndarray]:
        """[n, F] features of each request's candidates at its moment; F = 0 where nobody reads them."""
        if self._evidence is None:
            return [np.empty((len(items), 0)) for items in candidates]
        features = self._evidence.evidence.features(self._pairs(requests, candidates))
        return np.split(features, np.cumsum([len(items) for items in candidates])[:-1]) if requests else []

    def _pairs(self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]) -> pa.Table:
        """`PAIRS` of all candidates; where there are times, a position counts as its time."""
        rows = []
        for request, items in zip(requests, candidates, strict=True):
            moment, position = request.as_of, request.as_of_position
            if self._histories.timed:
                past = self._histories.past(request.user_id, as_of=moment, as_of_position=position)
                moment, position = past.moment, None
            rows += [(request.user_id, item_id, moment, position) for item_id in items]
        columns = zip(*rows, strict=True) if rows else ((),) * len(PAIRS)
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, PAIRS, strict=True)], PAIRS)

    def _assemble(
        self, request: Request, similar_users: Sequence[Neighbour], candidates: Sequence[str],
        rejects: Sequence[Reject], known: np.ndarray,
    ) -> Assembled:  # fmt: skip
        words: Mapping[str, ItemWords] = {}
        evidence = self._evidence
        if evidence is not None and self._builder.says_evidence:
            words = dict(zip(candidates, item_words(evidence.evidence.names, known), strict=True))
        prompt, fitting, too_long = self._build(request, candidates, similar_users, words)
        if prompt and evidence is not None:
            rows = evidence.model.standardise(known).tolist()
            row_of = dict(zip(candidates, rows, strict=True))
            group = replace(prompt.group, evidence=[row_of[item_id] for item_id in fitting])
            prompt = replace(prompt, group=group)
        cold_start = request.user_id not in self._neighbours
        return Assembled(prompt, fitting, [*rejects, *too_long], similar_users, cold_start)

    def _build(
        self, request: Request, candidates: Sequence[str], similar_users: Sequence[Neighbour],
        words: Mapping[str, ItemWords],
    ) -> tuple[Prompt | None, Sequence[str], list[Reject]]:  # fmt: skip
        """The prompt of as many candidates as fit; the longest are given up first, one length at a time."""
        if not candidates:
            return None, [], []
        context = replace(self._context(request, candidates, similar_users), words=words)
        length = {item_id: self._builder.suffix_length(item_id, words.get(item_id)) for item_id in candidates}
        too_long: dict[str, str] = {}
        while fitting := [item_id for item_id in candidates if item_id not in too_long]:
            try:
                prompt = self._builder.build(context, fitting)
                break
            except PromptTooLong as error:
                longest = max(length[item_id] for item_id in fitting)
                too_long |= {item_id: str(error) for item_id in fitting if length[item_id] == longest}
        rejects = [
            Reject(item_id, "prompt_too_long", too_long[item_id]) for item_id in candidates if item_id in too_long
        ]
        return prompt if fitting else None, fitting, rejects

    def _context(self, request: Request, candidates: Sequence[str], similar_users: Sequence[Neighbour]) -> Context:
        assert request.user_id is not None, "nobody's pairs are rejects"
        histories, limit = self._histories, self._settings.max_similar_history
        past = histories.past(
            request.user_id, as_of=request.as_of, as_of_position=request.as_of_position, hide=set(candidates)
        )
        ids = [neighbour.user_id for neighbour in similar_users]
        shown = [(user, histories.of_similar(user, past, limit=limit)) for user in ids]
        return Context(
            user=self._profile(request.user_id, histories.mean_of_target(past)),
            history=histories.of_target(past, limit=self._settings.max_history),
            similar=[
                (self._profile(user, histories.mean_of_similar(user, past)), entries)
                for user, entries in shown
                if entries
            ],
        )

    def _profile(self, user_id: str, mean_stars: float | None) -> Mapping[str, Any]:
        """A user's row as it stood at the request: its mean is that of the ratings until then."""
        return {**(self._users.get(user_id) or self._users.blank(user_id)), "mean_stars": mean_stars}

    def _usable(self, request: Request, asked: set[AskedPair]) -> tuple[list[str], list[Reject]]:
        candidates: list[str] = []
        rejects: list[Reject] = []
        for item_id in request.item_ids or ():
            pair = (request.user_id, item_id)
            if request.user_id is None:
                rejects.append(Reject(item_id, "null_user", "user_id is null"))
            elif item_id is None:
                rejects.append(Reject(item_id, "null_item", "item_id is null"))
            elif pair in asked:
                rejects.append(Reject(item_id, "duplicate_pair", f"item {_shown(item_id)} is asked of the user before"))
            elif not self._builder.knows(item_id):
                rejects.append(Reject(item_id, "unknown_item", f"item {_shown(item_id)} is not in the items table"))
            else:
                candidates.append(item_id)
            asked.add(pair)
        if request.as_of is not None and not self._histories.timed:  # ignoring it could show what came later
            reason = "the request has as_of, but not every interaction has an event_time: leave as_of null"
            rejects += [Reject(item_id, "as_of_without_times", reason) for item_id in candidates]
            candidates = []
        return candidates, rejects


def _shown(item_id: str) -> str:
    """An id in a message; one of 1 MB stands in its own column already."""
    return repr(item_id if len(item_id) <= MAX_SHOWN else f"{item_id[:MAX_SHOWN]}...")


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
