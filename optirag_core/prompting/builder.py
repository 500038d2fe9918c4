"""Requests -> prompts as token ids, assembled from cached pieces. Training, batch and online all use `PromptBuilder`.

Shapes: P prefix tokens, S suffix tokens, n candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from optirag_core.config.data import PromptSettings
from optirag_core.data.histories import Shown
from optirag_core.engine.groups import UserGroup
from optirag_core.errors import PromptTooLong
from optirag_core.evidence.words import ItemWords
from optirag_core.prompting.template import PromptTemplate
from optirag_core.prompting.tokens import PieceEncoder

MIN_ENTRIES = 3
"""A history is cut down to this many entries before a similar user is dropped: the least that a sample needs."""

RATINGS_COMPARED = (1.0, 2.0, 5.0)
"""Against these the first token that tells a rating is found; three, as a template may show two ratings alike."""

PROFILE_CACHE = 65_536
"""Most recent texts whose ids are kept; bounds memory where every user has a profile of its own."""


@dataclass(frozen=True)
class Context:
    """What a prompt shows of one user: rows as mappings of column to value."""

    user: Mapping[str, Any]
    history: Sequence[Shown]  # oldest first
    similar: Sequence[tuple[Mapping[str, Any], Sequence[Shown]]] = ()  # most similar first
    words: Mapping[str, ItemWords] = field(default_factory=dict)  # of each candidate, where the prompt says evidence


@dataclass(frozen=True)
class Prompt:
    """The prompts of one user and what was left out of them."""

    group: UserGroup
    rating_positions: tuple[int, ...]  # prefix positions of the shown ratings, targets of the LLM's history loss
    num_similar_users: int
    num_dropped_entries: int
    num_dropped_users: int


class PromptBuilder:
    """Renders and encodes every distinct piece once, then concatenates ids."""

    def __init__(
        self, settings: PromptSettings, tokenizer: PreTrainedTokenizerBase, items: Mapping[str, Mapping[str, Any]],
        *, evidence: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            items: item_id -> row with title and the template's columns.
            evidence: the prompt says what others thought of a candidate: `evidence.prompt`.

        Raises:
            PromptError: the template or an answer word does not fit.
        """
        self.says_evidence = evidence
        self._settings = settings
        self._items = items
        self._template = PromptTemplate(settings, evidence=evidence)
        self._encoder = PieceEncoder(tokenizer)
        self._opening = cache(lambda similar: self._encode_opening(similar=similar))
        self._profile = lru_cache(PROFILE_CACHE)(self._encode_long)
        self._entry = cache(lambda item_id: self._encode_long(self._template.entry(items[item_id])))
        self._rating = cache(lambda rating, last: self._encoder.encode(self._template.rating(rating, last=last)))
        self._closing = cache(lambda *following: self._encoder.encode(self._template.closing(*following)))
        self._candidate = cache(lambda item_id: self._encode_long(self._template.candidate(items[item_id])))
        self._said = cache(lambda words: self._encoder.encode(self._template.candidate_evidence(words)))
        cue = self._template.answer_cue()
        self._answer_cue = self._encoder.encode(cue)
        self.answer_ids = self._encoder.answer_ids(cue, settings.answer_yes, settings.answer_no)
        self._rating_offset = cache(self._first_difference)
        # A longer text has more than max_tokens tokens: no prompt has room for it, whatever follows.
        self._max_characters = (settings.max_tokens + 1) * self._encoder.longest_piece

    def knows(self, item_id: str) -> bool:
        """Whether the item can be shown or asked about."""
        return item_id in self._items

    def build(self, context: Context, candidates: Sequence[str]) -> Prompt:
        """Token ids of one user's prompts.

        Args:
            candidates: known item ids, in the order of the result's suffixes.

        Raises:
            PromptTooLong: prefix + longest suffix exceed `prompt.max_tokens` with everything droppable dropped.
        """
        suffixes = [self._suffix(candidate, context.words.get(candidate)) for candidate in candidates]
        room = self._settings.max_tokens - max(map(len, suffixes), default=0)
        given = [context.history, *(history for _, history in context.similar)]
        entries_before, users_before = sum(map(len, given)), len(context.similar)
        context = self._without_giants(context)
        histories = [[*context.history], *([*history] for _, history in context.similar)]
        profiles = [self._profile_of(context, number) for number in range(len(histories))]
        fixed = [self._fixed_length(profile, number) for number, profile in enumerate(profiles)]
        lengths = [[self._entry_length(entry) for entry in history] for history in histories]
        _shorten(histories, lengths, fixed, room)
        if sum(map(sum, lengths)) + sum(fixed) > room:
            user_id = str(context.user.get("user_id"))[:100]
            raise PromptTooLong(
                f"prompt of user {user_id!r} has {sum(map(sum, lengths)) + sum(fixed)} prefix "
                f"tokens at its shortest, {room} are left of prompt.max_tokens {self._settings.max_tokens}; raise it"
            )
        prefix, rating_positions = self._prefix(profiles, histories)
        return Prompt(
            group=UserGroup(prefix, suffixes),
            rating_positions=tuple(rating_positions),
            num_similar_users=len(histories) - 1,
            num_dropped_entries=entries_before - sum(map(len, histories)),
            num_dropped_users=users_before - (len(histories) - 1),
        )

    def _without_giants(self, context: Context) -> Context:
        """Leave out entries that fill a prompt alone: dropped in order they would take the older ones with them."""
        fits = [
            [entry for entry in history if self._entry_length(entry) <= self._settings.max_tokens]
            for history in (context.history, *(history for _, history in context.similar))
        ]
        similar = [
            (user, kept) for (user, given), kept in zip(context.similar, fits[1:], strict=True) if kept or not given
        ]
        return replace(context, history=fits[0], similar=similar)

    def suffix_length(self, candidate: str, words: ItemWords | None = None) -> int:
        """Tokens of the question about a known item."""
        return len(self._suffix(candidate, words))

    def _suffix(self, candidate: str, words: ItemWords | None) -> list[int]:
        return [*self._candidate(candidate), *(self._said(words) if words else ()), *self._answer_cue]

    def _encode_opening(self, *, similar: bool) -> list[int]:
        return [*self._encoder.bos, *self._encoder.encode_first(self._template.opening(similar=similar))]

    def _encode_long(self, text: str) -> list[int]:
        """Ids of a piece, or of as much of it as already exceeds every prompt; a title of 1 MB would take a second."""
        return self._encoder.encode(text[: self._max_characters])[: self._settings.max_tokens + 1]

    def _prefix(
        self, profiles: Sequence[Sequence[int]], histories: Sequence[Sequence[Shown]]
    ) -> tuple[list[int], list[int]]:
        """Similar users first, the target user last; of both arguments the target user's is the first."""
        ids, rating_positions = [*self._opening(len(histories) > 1)], []
        for number in [*range(1, len(histories)), 0]:
            ids += profiles[number]
            for place, entry in enumerate(histories[number], start=1):
                last = place == len(histories[number])
                ids += self._entry(entry.item_id)
                rating_positions.append(len(ids) + self._rating_offset(entry.rating, last))
                ids += self._rating(entry.rating, last)
            ids += self._closing_of(number, len(histories) - 1)
        return ids, rating_positions

    def _profile_of(self, context: Context, number: int) -> list[int]:
        if number == 0:
            return self._profile(self._template.profile("target_user", context.user))
        return self._profile(self._template.profile("similar_user", context.similar[number - 1][0]))

    def _closing_of(self, number: int, num_similar: int) -> list[int]:
        if number == 0:
            return self._closing("question")
        return self._closing("rank", number + 1) if number < num_similar else self._closing("target_heading")

    def _fixed_length(self, profile: Sequence[int], number: int) -> int:
        """Tokens that a user adds to a prompt without entries: the target user first, then each similar user."""
        if number == 0:
            return len(self._opening(False)) + len(profile) + len(self._closing("question"))
        if number == 1:
            heading = len(self._opening(True)) - len(self._opening(False))
            return heading + len(profile) + len(self._closing("target_heading"))
        return len(profile) + len(self._closing("rank", number))

    def _entry_length(self, entry: Shown) -> int:
        return len(self._entry(entry.item_id)) + max(len(self._rating(entry.rating, last)) for last in (False, True))

    def _first_difference(self, rating: float, last: bool) -> int:
        """Place, in a rating's piece, of the first token that depends on the rating.

        Of a rating that is several tokens ("10") it is the first of them.
        """
        piece = self._rating(rating, last)
        others = [other for other in (self._rating(known, last) for known in RATINGS_COMPARED) if other != piece]
        return min((_common_length(piece, other) for other in others), default=0)


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)) - 1)


def _shorten(histories: list[list[Shown]], lengths: list[list[int]], fixed: list[int], room: int) -> None:
    """Drop oldest entries of the longest history, then the least similar user, until the prefix fits into `room`.

    Index 0 is the target user; of equally long histories the least similar user's is cut first.
    """
    while sum(map(sum, lengths)) + sum(fixed) > room:
        longest = max(range(len(histories)), key=lambda number: (len(histories[number]), number))
        if len(histories[longest]) > MIN_ENTRIES:
            del histories[longest][0], lengths[longest][0]
        elif len(histories) > 1:
            del histories[-1], lengths[-1], fixed[-1]
        else:
            return
