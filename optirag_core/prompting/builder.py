"""Requests -> prompts as token ids, assembled from cached pieces. Training, batch and online all use `PromptBuilder`.

Shapes: P prefix tokens, S suffix tokens, n candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from optirag_core.config import PromptSettings
from optirag_core.data.histories import Shown
from optirag_core.engine.groups import UserGroup
from optirag_core.errors import PromptTooLong
from optirag_core.prompting.template import PromptTemplate
from optirag_core.prompting.tokens import PieceEncoder

MIN_ENTRIES = 3
"""A history is cut down to this many entries before a similar user is dropped: the least that a sample needs."""

FIRST_ENTRY, NEXT_ENTRY, LIST_END = PUNCTUATION = ("'", ", '", "]")
"""Around the entries of a history; a rating's piece closes the quotation."""

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
        self, settings: PromptSettings, tokenizer: PreTrainedTokenizerBase, items: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """
        Args:
            items: item_id -> row with title and the template's columns.

        Raises:
            PromptError: the template or an answer word does not fit.
        """
        self._settings = settings
        self._items = items
        self._template = PromptTemplate(settings)
        self._encoder = PieceEncoder(tokenizer)
        self._static = cache(lambda macro: self._encoder.encode(self._template.render(macro)))
        self._text = lru_cache(PROFILE_CACHE)(self._encode_start)
        self._item = cache(lambda item_id: self._rendered("item", items[item_id]))
        self._candidate = cache(lambda item_id: self._rendered("candidate", items[item_id]))
        self._rating = cache(lambda rating: self._encoder.encode(self._template.render("rating", rating)))
        self._rank = cache(lambda number: self._encoder.encode(self._template.render("rank", number)))
        cue = self._template.render("answer_cue")
        self.answer_ids = self._encoder.answer_ids(cue, settings.answer_yes, settings.answer_no)
        self._rating_offset = cache(self._first_difference)
        # A text of so many characters has more than max_tokens tokens: no prompt has room for it, whatever follows.
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
        suffixes = [self._suffix(candidate) for candidate in candidates]
        room = self._settings.max_tokens - max(map(len, suffixes), default=0)
        given = [context.history, *(history for _, history in context.similar)]
        entries_before, users_before = sum(map(len, given)), len(context.similar)
        fixed = [self._header_length(context, number) for number in range(len(given))]
        # an entry that fills a prompt alone is in none: dropping in order it would take the older ones with it
        limit = self._settings.max_tokens
        histories = [[entry for entry in user if self._entry_length(entry) <= limit] for user in given]
        lengths = [[self._entry_length(entry) for entry in history] for history in histories]
        _shorten(histories, lengths, fixed, room)
        if sum(map(sum, lengths)) + sum(fixed) > room:
            user_id = str(context.user.get("user_id"))[:100]
            raise PromptTooLong(
                f"prompt of user {user_id!r} has {sum(map(sum, lengths)) + sum(fixed)} prefix "
                f"tokens at its shortest, {room} are left of prompt.max_tokens {self._settings.max_tokens}; raise it"
            )
        prefix, rating_positions = self._prefix(context, histories)
        return Prompt(
            group=UserGroup(prefix, suffixes),
            rating_positions=tuple(rating_positions),
            num_similar_users=len(histories) - 1,
            num_dropped_entries=entries_before - sum(map(len, histories)),
            num_dropped_users=users_before - (len(histories) - 1),
        )

    def suffix_length(self, candidate: str) -> int:
        """Tokens of the question about a known item."""
        return len(self._suffix(candidate))

    def _suffix(self, candidate: str) -> list[int]:
        return [*self._static("question"), *self._candidate(candidate), *self._static("answer_cue")]

    def _rendered(self, macro: str, value: Mapping[str, Any]) -> list[int]:
        return self._text(self._template.render(macro, value)[: self._max_characters])

    def _encode_start(self, text: str) -> list[int]:
        """Ids of a text, or of as much of it as already exceeds every prompt; a title of 1 MB would take a second."""
        return self._encoder.encode(text)[: self._settings.max_tokens + 1]

    def _prefix(self, context: Context, histories: Sequence[Sequence[Shown]]) -> tuple[list[int], list[int]]:
        ids, rating_positions = [*self._encoder.bos, *self._static("instruction")], []
        order = [*range(1, len(histories)), 0]  # similar users first, the target user last
        for number in order:
            ids += self._header(context, number)
            for place, entry in enumerate(histories[number]):
                ids += self._text(NEXT_ENTRY if place else FIRST_ENTRY) + self._item(entry.item_id)
                rating_positions.append(len(ids) + self._rating_offset(entry.rating))
                ids += self._rating(entry.rating)
            ids += self._text(LIST_END)
        return ids, rating_positions

    def _header(self, context: Context, number: int) -> list[int]:
        if number == 0:
            return self._static("target_heading") + self._rendered("target_user", context.user)
        heading = self._static("similar_heading") if number == 1 else []
        user = self._rendered("similar_user", context.similar[number - 1][0])
        return heading + self._rank(number) + user

    def _header_length(self, context: Context, number: int) -> int:
        instruction = len(self._encoder.bos) + len(self._static("instruction")) if number == 0 else 0
        return instruction + len(self._header(context, number)) + len(self._text(LIST_END))

    def _entry_length(self, entry: Shown) -> int:
        return len(self._text(NEXT_ENTRY)) + len(self._item(entry.item_id)) + len(self._rating(entry.rating))

    def _first_difference(self, rating: float) -> int:
        """Place, in a rating's piece, of the first token that depends on the rating.

        Of a rating that is several tokens ("10") it is the first of them.
        """
        piece = self._rating(rating)
        others = [other for other in map(self._rating, RATINGS_COMPARED) if other != piece]
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
