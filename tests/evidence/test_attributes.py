"""Which columns are counted, and the values of a column."""

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.errors import ConfigError
from optirag_core.evidence.attributes import Values, chosen_attributes, item_values

GENRES = ["Action|Comedy", "Comedy|Drama", "Action|Drama", "Drama|Action", "Comedy", "Action|Comedy|Drama"] * 2


def items(**columns):
    number = len(next(iter(columns.values())))
    ids = [str(place) for place in range(number)]
    return pa.table({"item_id": ids, "title": ["T"] * number, **columns})


def values(column, kind=None):
    rows, found = item_values(items(it=pa.array(column, kind)), "it")
    return [(row, value) for row, value in zip(rows.tolist(), found.to_pylist(), strict=True)]


def test_values_of_text_numbers_and_lists():
    assert values(["Eco", None, " Eco ", "  "]) == [(0, "Eco"), (2, "Eco")]
    assert values([1984, None, 1984], pa.int16()) == [(0, "1984"), (2, "1984")]
    assert values([["a", "b", "a", None], None, [], ["b"]]) == [(0, "a"), (0, "b"), (3, "b")]


@pytest.mark.parametrize("separator", ["|", ", ", ";"])
def test_text_is_split_where_its_parts_are_common(separator):
    parted = values([text.replace("|", separator) for text in GENRES])
    assert parted[:4] == [(0, "Action"), (0, "Comedy"), (1, "Comedy"), (1, "Drama")]
    assert {value for _, value in parted} == {"Action", "Comedy", "Drama"}


def test_the_comma_of_a_name_stays():
    names = ["Austen, Jane", "Austin, Jane", "Eco, Umberto", "Poe, Edgar"] * 3
    assert {value for _, value in values(names)} == set(names)


def test_columns_are_chosen_by_what_items_share():
    table = items(
        author=["A", "A", "B", "B", None, "C"],
        year=pa.array([1, 1, 2, 2, 3, 4], pa.int16()),
        tags=[["x"], ["x", "y"], ["y"], None, [], ["x"]],
        price=[1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
        link=["1", "2", "3", "4", "5", "5"],
        constant=["same"] * 6,
        unknown=pa.nulls(6, pa.string()),
        nothing=pa.nulls(6),
    )
    assert chosen_attributes(table) == ("author", "tags")  # a year could as well be a number of reviews


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brand", "no column 'brand'; there is price"),
        ("title", "no column 'title'"),
        ("price", "'price' is double, expected text, whole numbers or lists"),
    ],
)
def test_a_column_that_cannot_be_counted_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        item_values(items(price=[1.0]), name)


def test_values_of_asked_items():
    of = Values(np.array([0, 2, 2, 3]), np.array([5, 6, 7]))
    pair, value = of.of(np.array([2, -1, 0, 1, 0]))
    assert (pair.tolist(), value.tolist()) == ([0, 2, 2, 4, 4], [7, 5, 6, 5, 6])
