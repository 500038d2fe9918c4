"""What one call needs, on the batch job's artifacts and with what has happened since: the events, and its own history.

    event -> history of its user, evidence of everybody, vector of its user (folded in, nothing is trained)
    call  -> the batch job's assembler on these, for one request

A call without events and history gets exactly the batch job's prompt. What may be known at its moment:

- The user's vector: as it was trained, unless the user has events, or the call tells of some, before the moment.
- Other users' vectors: the newest, unless the call has an `as_of` or an `as_of_position`; then as they were trained.
- Histories, means and evidence: what `data.histories` and `evidence` show of rows, of events too.

Nobody sees events of another user but in the evidence's counts, and in who is similar.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from optirag_core.artifacts import Artifact
from optirag_core.config.data import PromptSettings
from optirag_core.config.settings import Settings
from optirag_core.data.histories import Histories, Past, Shown
from optirag_core.data.mapped import SortedIds, open_mapped
from optirag_core.data.rows import Rows
from optirag_core.errors import ArtifactMismatch
from optirag_core.events.event import UserEvent
from optirag_core.evidence.model import EvidenceModel, PairEvidence
from optirag_core.evidence.updated import Rated, UpdatedEvidence
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.assembly import Assembled, HistoryEntry, PromptAssembler, Request
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.candidates import ALL, Candidates
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.index import Neighbour, UserIndex
from optirag_core.retrieval.updated_index import UpdatedIndex
from optirag_core.retrieval.vectors import load_fold_in, load_vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownUser:
    """What is known of a user now."""

    history: Sequence[Shown]  # newest last, as a prompt would show it
    titles: Sequence[str]  # of the history
    similarities: Sequence[float]  # cosine of each similar user, most similar first
    cold_start: bool


@dataclass(frozen=True)
class _Known:
    """Everything that follows events."""

    histories: Histories
    evidence: UpdatedEvidence
    index: UpdatedIndex


@dataclass(frozen=True)
class _Asking:
    """The similar users of one call's user: what the assembler asks for."""

    index: UpdatedIndex
    vector: np.ndarray | None  # [D]; None: a cold start
    updated: bool

    def __contains__(self, user_id: str | None) -> bool:
        return self.vector is not None

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> list[list[Neighbour]]:
        if self.vector is None:
            return [[] for _ in user_ids]
        return [self.index.similar_to(self.vector, k, without=user_id, updated=self.updated) for user_id in user_ids]


class OnlineContexts:
    """Contexts of calls; `apply` may run in one thread while another one asks."""

    def __init__(
        self, known: _Known, users: Rows, builder: PromptBuilder, model: EvidenceModel, candidates: Candidates,
        fold_in: FoldIn | None, items: pa.RecordBatch, settings: PromptSettings, like_threshold: float,
    ) -> None:  # fmt: skip
        """
        Args:
            known: without events.
            fold_in: None where vectors cannot be made without training: every user keeps the trained one.
            items: item_id, ascending, and title.
            like_threshold: a rating above it counts as liked.
        """
        self._known, self._users, self._builder, self._model = known, users, builder, model
        self._candidates, self._fold_in, self._settings = candidates, fold_in, settings
        self._like_threshold = np.float32(like_threshold)
        self._item_ids, self._titles = SortedIds(items["item_id"]), items["title"]
        self._popularity = known.histories.popularity(items["item_id"])  # [I]
        self._lock = Lock()

    @classmethod
    def open(cls, settings: Settings, artifacts: Artifacts, tokenizer: PreTrainedTokenizerBase) -> Self:
        """On these artifacts; no event is known yet.

        Raises:
            ArtifactMismatch: an earlier version has made the retriever.
        """
        dataset, retriever = artifacts["dataset"], artifacts["retriever"]
        histories, evidence = Histories.open(dataset.path), artifacts["evidence"].path
        index = UserIndex.load(retriever.path, artifacts["index"].path)
        item_vectors = load_vectors(retriever.path, "item")
        prompt = settings.prompt
        return cls(
            _Known(histories, UpdatedEvidence.open(evidence), UpdatedIndex(index)),
            Rows.open(dataset.path, "user"),
            PromptBuilder(prompt, tokenizer, Rows.open(dataset.path, "item"), evidence=settings.evidence.prompt),
            EvidenceModel.open(evidence),
            Candidates(index.user_ids.array, index.embeddings, *item_vectors, histories),
            _open_fold_in(retriever, item_vectors[0]),
            open_mapped(dataset.path / "items.arrow"),
            prompt,
            dataset.manifest["config"]["dataset"]["like_threshold"],
        )

    def apply(self, events: Sequence[UserEvent]) -> None:
        """Take in events, in the order of the log, each once; they count from the next call on.

        An event of an item that the data set lacks, or without the time that all of its interactions have, says nothing
        to these artifacts and is passed over.
        """
        with self._lock:
            usable = [event for event in events if self._is_usable(event)]
            for event in usable:
                self._count(event)
            for user_id in {event.user_id for event in usable}:
                past = self._known.histories.past(user_id)
                if (vector := self._folded(self._known.histories, past)) is not None:
                    self._known.index.put(user_id, vector)
        if len(usable) < len(events):
            log.warning("%d of %d events do not fit this data set", len(events) - len(usable), len(events))

    def assemble(self, request: Request) -> Assembled:
        """What the batch job would give for this request, had it known what is known now."""
        with self._lock:
            known, entries = self._with_history(request)
            assembler = PromptAssembler(
                known.histories, self._users, self._asking(request, known), self._builder, self._settings,
                num_similar_users=self._settings.num_similar_users,
                evidence=PairEvidence(known.evidence, self._model),
            )  # fmt: skip
            [assembled] = assembler.assemble([request])
        return replace(assembled, num_unknown_entries=len(request.history) - len(entries))

    def candidates(self, request: Request, number: int) -> list[str]:
        """The retriever's best items for this user, without those that a prompt may show of the user.

        Args:
            number: the most to return; fewer where fewer items are left.
        """
        with self._lock:
            known, _ = self._with_history(request)
            seen = [shown.item_id for shown in known.histories.of_target(_past(request, known.histories), limit=ALL)]
            return self._candidates.near(self._asking(request, known).vector, seen, number)

    def user(self, user_id: str) -> KnownUser:
        """What a prompt would show of a user now; of an unknown one nothing."""
        request = Request(user_id, ())
        with self._lock:
            histories = self._known.histories
            history = histories.of_target(histories.past(user_id), limit=self._settings.max_history)
            asking = self._asking(request, self._known)
            [similar] = asking.similar_batch([user_id], self._settings.num_similar_users)
        titles = [self.title(shown.item_id) for shown in history]
        return KnownUser(history, titles, [neighbour.similarity for neighbour in similar], asking.vector is None)

    def users(self, prefix: str, limit: int) -> list[str]:
        """The first ids, in order, of users with interactions or events that begin like this."""
        with self._lock:
            return self._known.histories.users(prefix, limit)

    def items(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Ids and titles of the most popular items with this in their title, whatever the case."""
        rows = pc.indices_nonzero(pc.match_substring(self._titles, text, ignore_case=True)).to_numpy()
        rows = rows[np.argsort(-self._popularity[rows], kind="stable")][:limit]
        return [(self._item_ids[row], self._titles[row].as_py()) for row in rows.tolist()]

    def knows_item(self, item_id: str) -> bool:
        """Whether the item can be shown or asked about."""
        return self._item_ids.row(item_id) >= 0

    def title(self, item_id: str) -> str:
        """Of an item that is known."""
        return self._titles[self._item_ids.row(item_id)].as_py()

    def _is_usable(self, event: UserEvent) -> bool:
        return self.knows_item(event.item_id) and (event.time is not None or not self._known.histories.timed)

    def _count(self, event: UserEvent) -> None:
        histories = self._known.histories
        position = histories.append(event.user_id, event.item_id, event.rating, event.time)
        order = event.time if histories.timed else position
        self._known.evidence.add(self._rated(event.user_id, event, order))

    def _rated(self, user_id: str, entry: UserEvent | HistoryEntry, order: int) -> Rated:
        liked = np.float32(entry.rating) > self._like_threshold
        return Rated(user_id, entry.item_id, entry.rating, int(liked), order)

    def _with_history(self, request: Request) -> tuple[_Known, Sequence[HistoryEntry]]:
        """What is known with the entries that the request tells of, and those of them whose items are known."""
        entries = [entry for entry in request.history if self.knows_item(entry.item_id)]
        known = self._known
        if not entries:
            return known, entries
        past = _past(request, known.histories)
        before = [entry for entry in entries if None in (entry.time, past.moment) or entry.time < past.moment]
        moment = past.moment if known.histories.timed else past.position
        rated = [self._rated(request.user_id, entry, 0) for entry in before]
        shown = [Shown(entry.item_id, float(entry.rating)) for entry in before]
        histories = known.histories.continued(request.user_id, shown)
        return replace(known, histories=histories, evidence=known.evidence.continued(rated, moment)), entries

    def _asking(self, request: Request, known: _Known) -> _Asking:
        now = request.as_of is None and request.as_of_position is None
        if now and known is self._known:
            return _Asking(known.index, known.index.vector(request.user_id), updated=True)
        vector = self._folded(known.histories, _past(request, known.histories))
        trained = known.index.trained(request.user_id)
        return _Asking(known.index, trained if vector is None else vector, updated=now)

    def _folded(self, histories: Histories, past: Past) -> np.ndarray | None:
        """The user's vector with all events of this past; None where they say nothing that training has not seen."""
        trained = histories.training_items(past.user_id) if self._fold_in else []
        new = {shown.item_id for shown in histories.events_of(past)}.difference(trained)
        if self._fold_in is None or self._fold_in.vector(new) is None:
            return None
        return self._fold_in.vector({*trained, *new})


def _past(request: Request, histories: Histories) -> Past:
    return histories.past(request.user_id, as_of=request.as_of, as_of_position=request.as_of_position)


def _open_fold_in(retriever: Artifact, item_ids: pa.LargeStringArray) -> FoldIn | None:
    """None for a retriever by text: its users' vectors are no sums over items.

    Raises:
        ArtifactMismatch: an earlier version has made the retriever.
    """
    if retriever.manifest["config"]["retriever"]["method"] == "text":
        return None
    if (vectors := load_fold_in(retriever.path)) is None:
        raise ArtifactMismatch(
            f"retriever/{retriever.version} was made by an earlier version, which did not write what new interactions "
            "are folded in with: remove its folder and run train_retriever again, then what was made from it"
        )
    return FoldIn(item_ids, vectors)
