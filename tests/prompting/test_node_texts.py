"""What the text retriever reads: training interactions in the template's words, and nothing else."""

import pytest

from optirag_core.config.data import PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.prompting.template import PromptTemplate

from .conftest import FAMILIES, SETTINGS, interactions, item

ITEMS = {name: item(f"Book {name}") for name in "pqrs"}
ROWS = [("a", "p", 9.0, "train"), ("a", "q", 1.0, "train"), ("b", "q", 7.0, "train"), ("a", "r", 5.0, "train")]


def texts(*extra, settings=SETTINGS["books"], limit=10, items=ITEMS):
    return NodeTexts(PromptTemplate(settings), Histories.of(interactions(*ROWS, *extra)), items, limit=limit)


def test_texts_by_hand():
    known = texts()
    assert known.of_users(["b", "a"]) == [
        "'Book q (7 stars)'",
        "'Book r (5 stars)', 'Book q (1 star)', 'Book p (9 stars)'",
    ]
    assert known.of_items(["q", "p"]) == ["Book q", "Book p"]


def test_items_have_the_fields_that_the_template_shows():
    assert texts(settings=SETTINGS["amazon"]).of_items(["p"]) == ["Book p. Its price is $4.50"]
    assert texts(settings=SETTINGS["generic"]).of_items(["p"]) == ["Book p, genre crime, tags a, b"]
    plain = PromptSettings(template="generic")
    assert texts(settings=plain).of_users(["b"]) == ["'Book q (rating 7)'"]


def test_of_a_long_history_the_newest_entries_stay():
    assert texts(limit=2).of_users(["a"]) == ["'Book r (5 stars)', 'Book q (1 star)'"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["tune", "validation", "test"])
def test_planted_held_out_rows_change_no_text(split, family):
    settings = SETTINGS[family]
    leaking = texts(("a", "s", 3.0, split), ("b", "p", 8.0, split), ("c", "p", 8.0, split), settings=settings)
    assert leaking.of_users(["a", "b"]) == texts(settings=settings).of_users(["a", "b"])
    assert leaking.of_users(["c"]) == [""]
    assert texts(("a", "s", 3.0, "train"), settings=settings).of_users(["a"]) != leaking.of_users(["a"])


def test_a_title_stays_inside_of_its_quotation():
    known = texts(items={**ITEMS, "q": item("It's 'over' (9 stars)', 'Forged")})
    [text] = known.of_users(["b"])
    assert text.count("'") == 2
