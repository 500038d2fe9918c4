"""A small library of books, and prompts in their slow, obvious form."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from optirag_core.config import PromptSettings
from optirag_core.data.histories import Shown
from optirag_core.data.schema import INTERACTIONS
from optirag_core.prompting.builder import Context
from optirag_core.prompting.template import PromptTemplate

FAMILIES = ("books", "amazon", "yelp", "generic")
TEXT_FIELDS = {"books": (), "amazon": (), "yelp": ("city", "state"), "generic": ("genre", "tags")}
"""Per family the item columns, beside the title, whose text a prompt shows."""

SETTINGS = {
    family: PromptSettings(template=family, item_fields=("genre", "tags") if family == "generic" else ())
    for family in FAMILIES
}
READER = {
    "user_id": "u", "location": "USA", "age": 47, "joined": "2016-07-20", "mean_stars": 3.825,
}  # fmt: skip


def item(title: str, **columns: object) -> dict[str, Any]:
    """A row with the columns of every family."""
    common = {"price": 4.5, "city": "Tampa", "state": "FL", "genre": "crime", "tags": ["a", "b"]}
    return {"title": title, **common, **columns}


def whole_prompt(
    settings: PromptSettings, items: Mapping[str, Mapping[str, Any]], context: Context, candidate: str
) -> list[str]:
    """The pieces of one prompt, in the order of the paper's tables 6-8."""
    render = PromptTemplate(settings).render

    def entries(history: Sequence[Shown]) -> list[str]:
        pieces = []
        for number, entry in enumerate(history):
            quote = "'" if number == 0 else ", '"
            pieces += [quote, render("item", items[entry.item_id]), render("rating", entry.rating)]
        return [*pieces, "]"]

    pieces = [render("instruction")]
    if context.similar:
        pieces.append(render("similar_heading"))
    for number, (user, history) in enumerate(context.similar, start=1):
        pieces += [render("rank", number), render("similar_user", user), *entries(history)]
    pieces += [render("target_heading"), render("target_user", context.user), *entries(context.history)]
    return [*pieces, render("question"), render("candidate", items[candidate]), render("answer_cue")]


def interactions(*rows: tuple) -> pa.Table:
    """Rows of (user, item, rating, split) or, with a time in microseconds, (user, item, rating, split, time)."""
    seen: dict[str, int] = {}
    records = []
    for user, item_id, rating, split, *time in rows:
        position = seen.get(user, 0)
        seen[user] = position + 1
        records.append((user, item_id, rating, int(rating > 3), *(time or [None]), position, split))
    columns = list(zip(*records, strict=True)) or [()] * len(INTERACTIONS)
    return pa.table(dict(zip(INTERACTIONS.names, columns, strict=True)), schema=INTERACTIONS)
