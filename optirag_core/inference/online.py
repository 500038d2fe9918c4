"""What one call needs, on the batch job's artifacts and with what has happened since: the events, and its own history.

    event -> history of its user, evidence of everybody, vector of its user (folded in, nothing is trained)
    call  -> the batch job's assembler on these (`known`), for one request

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
from optirag_core.data.histories import Histories, Shown
from optirag_core.data.mapped import SortedIds, open_mapped
from optirag_core.data.rows import Rows
from optirag_core.errors import ArtifactMismatch
from optirag_core.events.event import UserEvent
from optirag_core.evidence.model import EvidenceModel, PairEvidence
from optirag_core.evidence.updated import UpdatedEvidence
from optirag_core.inference.known import Known
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.assembly import Assembled, HistoryEntry, PromptAssembler, Request
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.candidates import ALL, Candidates
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.updated_index import UpdatedIndex
from optirag_core.retrieval.vectors import load_fold_in, load_vectors

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 25
"""Taken in while calls wait: some 5 ms."""


@dataclass(frozen=True)
class KnownUser:
    """What is known of a user now."""

    history: Sequence[Shown]  # newest last, as a prompt would show it
    titles: Sequence[str]  # of the history
    similarities: Sequence[float]  # cosine of each similar user, most similar first
    cold_start: bool


class OnlineContexts:
    """Contexts of calls; `apply` may run in one thread while another one asks."""

    def __init__(
        self, known: Known, users: Rows, builder: PromptBuilder, model: EvidenceModel, candidates: Candidates,
        items: pa.RecordBatch, settings: PromptSettings,
    ) -> None:  # fmt: skip
        """
        Args:
            known: without events.
            items: item_id, ascending, and title.
        """
        self._known, self._users, self._builder, self._model = known, users, builder, model
        self._candidates, self._settings = candidates, settings
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
        fold_in = _open_fold_in(retriever, item_vectors[0])
        like_threshold = np.float32(dataset.manifest["config"]["dataset"]["like_threshold"])
        prompt = settings.prompt
        return cls(
            Known(histories, UpdatedEvidence.open(evidence), UpdatedIndex(index), fold_in, like_threshold),
            Rows.open(dataset.path, "user"),
            PromptBuilder(prompt, tokenizer, Rows.open(dataset.path, "item"), evidence=settings.evidence.prompt),
            EvidenceModel.open(evidence),
            Candidates(index.user_ids.array, index.embeddings, *item_vectors, histories),
            open_mapped(dataset.path / "items.arrow"),
            prompt,
        )

    def apply(self, events: Sequence[UserEvent]) -> None:
        """Take in events, in the order of the log, each once; they count from the next call on.

        An event of an item that the data set lacks, or without the time that all of its interactions have, says nothing
        to these artifacts and is passed over.
        """
        timed = self._known.histories.timed
        usable = [event for event in events if self.knows_item(event.item_id) and (event.time is not None or not timed)]
        for start in range(0, len(usable), EVENTS_AT_ONCE):
            with self._lock:
                self._known.take_in(usable[start : start + EVENTS_AT_ONCE])
        if len(usable) < len(events):
            log.warning("%d of %d events do not fit this data set", len(events) - len(usable), len(events))

    def assemble(self, request: Request) -> Assembled:
        """What the batch job would give for this request, had it known what is known now."""
        entries = self._entries(request)
        with self._lock:
            known = self._known.with_entries(request, entries)
            assembler = PromptAssembler(
                known.histories, self._users, known.asking(request), self._builder, self._settings,
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
            known = self._known.with_entries(request, self._entries(request))
            seen = [shown.item_id for shown in known.histories.of_target(known.past(request), limit=ALL)]
            return self._candidates.near(known.asking(request).vector, seen, number)

    def user(self, user_id: str) -> KnownUser:
        """What a prompt would show of a user now; of an unknown one nothing."""
        request = Request(user_id, ())
        with self._lock:
            history = self._known.histories.of_target(self._known.past(request), limit=self._settings.max_history)
            asking = self._known.asking(request)
            [similar] = asking.similar_batch([user_id], self._settings.num_similar_users)
        titles = [self.title(shown.item_id) for shown in history]
        return KnownUser(history, titles, [neighbour.similarity for neighbour in similar], asking.vector is None)

    @property
    def timed(self) -> bool:
        """Whether all interactions have times."""
        return self._known.histories.timed

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

    def _entries(self, request: Request) -> list[HistoryEntry]:
        """Those of the request's history whose items are known."""
        return [entry for entry in request.history if self.knows_item(entry.item_id)]


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
            "are folded in with: run train_retriever again, then what is made from it"
        )
    return FoldIn(item_ids, vectors)
