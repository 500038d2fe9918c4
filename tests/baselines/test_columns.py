"""Columns as categories, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.baselines.columns import (
    MAX_CATEGORIES,
    NONE,
    NUM_BINS,
    attribute_codes,
    frequent_ids,
    profile_codes,
    shown_profile,
)
from optirag_core.config.data import PromptSettings
from optirag_core.prompting.template import PromptTemplate


def test_what_training_meets_too_rarely_is_0():
    codes = np.array([3, 3, 1, 1, 0, NONE, 1, 4])
    train = np.array([True, True, True, False, True, True, True, False])
    assert frequent_ids(codes, train, 1).tolist() == [3, 3, 2, 2, 1, 0, 2, 0]
    assert frequent_ids(codes, train, 2).tolist() == [2, 2, 1, 1, 0, 0, 1, 0]
    assert frequent_ids(codes, train, 3).tolist() == [0] * 8
    assert frequent_ids(np.array([NONE, NONE]), np.array([True, True]), 1).tolist() == [0, 0]


def test_of_a_list_the_first_value_counts():
    items = pa.table({"item_id": ["a", "b", "c", "d"], "genre": [["x", "y"], ["y"], None, ["x"]]})
    codes = attribute_codes(items, "genre", pa.chunked_array([["b", "a", "d", "c", "unknown"]]))
    assert codes[1] == codes[2] != codes[0]
    assert codes[3:].tolist() == [NONE, NONE]


def users(**columns):
    return pa.table({"user_id": [f"u{row}" for row in range(len(next(iter(columns.values()))))], **columns})


def codes_of(table, name, rows, train=None):
    asked = pa.chunked_array([[f"u{row}" for row in rows]])
    return profile_codes(table, name, asked, np.ones(len(rows), bool) if train is None else train)


@pytest.mark.parametrize(
    "values", [["x", "y", None, "x"], [7, 5, None, 7], [0.5, 2.5, None, 0.5], [True, False, None, True]]
)
def test_few_values_are_categories(values):
    first, second, third, fourth = codes_of(users(column=values), "column", [0, 1, 2, 3]).tolist()
    assert first == fourth != second and third == NONE


def test_many_numbers_are_binned_by_those_of_training():
    """100 training values in 20 bins of 5; what lies beyond them is in the outer bins, whatever it is."""
    table = users(column=[*range(100), -1000, 1000, None])
    train = np.arange(103) < 100
    codes = codes_of(table, "column", list(range(103)), train)
    assert np.bincount(codes[:100]).tolist() == [5] * NUM_BINS
    assert (np.diff(codes[:100]) >= 0).all()
    assert codes[100:].tolist() == [0, NUM_BINS - 1, NONE]
    assert len(np.unique(codes_of(table, "column", list(range(MAX_CATEGORIES))))) == MAX_CATEGORIES


def test_days_are_numbers():
    days = pa.array(range(100), pa.date32())
    assert np.bincount(codes_of(users(column=days), "column", list(range(100)))).tolist() == [5] * NUM_BINS


@pytest.mark.parametrize(
    ("template", "shown"), [("books", ["location", "age"]), ("yelp", ["joined"]), ("generic", []), ("books_short", [])]
)
def test_the_profile_is_what_prompts_show(template, shown):
    """A column mean_stars is the publisher's, of the day of the dump: prompts have a mean of their own."""
    table = users(
        location=[None, "USA"], age=pa.array([31, None], pa.int16()), joined=[None, "2012-01-01"],
        mean_stars=[3.5, 4.0], fans=[3, 4], empty=pa.nulls(2, pa.string()),
    )  # fmt: skip
    assert shown_profile(PromptTemplate(PromptSettings(template=template)), table) == shown
