"""Users and items as texts, in the words of the prompt's template: what the text retriever reads.

The graph's interactions and no others: a user's text shows the rows with split "train" alone.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from optirag_core.config.settings import Settings
from optirag_core.data.histories import Histories, Shown
from optirag_core.data.rows import Rows
from optirag_core.prompting.template import PromptTemplate


class NodeTexts:
    """Renders an item once and then repeats it."""

    def __init__(
        self, template: PromptTemplate, histories: Histories, items: Mapping[str, Mapping[str, Any]], *, limit: int
    ) -> None:
        """
        Args:
            items: item_id -> row with title and the template's columns.
            limit: the most entries of a history; an entry has at least one token.
        """
        self._histories, self._limit = histories, limit
        self._item = cache(lambda item_id: template.render("item", items[item_id]).strip())
        self._entry = cache(lambda item_id: template.entry(items[item_id]))
        self._rating = cache(lambda rating, last: template.rating(rating, last=last))

    @classmethod
    def open(cls, settings: Settings, dataset: Path) -> Self:
        """Over the files of a data set artifact.

        Raises:
            PromptError: the template cannot be used.
        """
        template = PromptTemplate(settings.prompt, evidence=settings.evidence.prompt)
        limit = settings.retriever.text.max_tokens
        return cls(template, Histories.open(dataset), Rows.open(dataset, "item"), limit=limit)

    def of_users(self, user_ids: Iterable[str]) -> list[str]:
        """Each user's training interactions with their ratings, newest first: what is cut off is the oldest."""
        past = self._histories.past(None)  # all of everybody's
        shown = (self._histories.of_similar(user_id, past, limit=self._limit) for user_id in user_ids)
        return [self._history(entries[::-1]) for entries in shown]

    def of_items(self, item_ids: Iterable[str]) -> list[str]:
        """Each item's title and what else the template shows of it."""
        return [self._item(item_id) for item_id in item_ids]

    def _history(self, entries: list[Shown]) -> str:
        parts = [
            self._entry(entry.item_id) + self._rating(entry.rating, place == len(entries))
            for place, entry in enumerate(entries, start=1)
        ]
        return "".join(parts).strip()
