"""Every registered predictor is checked for leaks, and sees nothing but known rows and the pairs' names."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.data.schema import PAIRS
from optirag_core.errors import DataError
from optirag_core.evaluation.predictors import PREDICTORS, predictions

from .conftest import interactions, known_of

KNOWN = [("a", "w", 1), ("a", "x", 1), ("a", "y", 0), ("b", "w", 1), ("b", "x", 0), ("c", "z", 0)]


def pairs_of(rows):
    """(user, item) rows -> PAIRS"""
    rows = [{"user_id": user, "item_id": item} for user, item in rows]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values))


def never(known, pairs):
    raise AssertionError("a predictor was asked although there is a leak")


def test_planted_test_row_is_refused_before_any_predictor_sees_it():
    splits = ["train", "tune", "validation", "train", "train", "test"]
    leaking = with_column(interactions(KNOWN), "split", splits)
    with pytest.raises(DataError, match="1 rows of the test split"):
        predictions(known_of(leaking), pairs_of([("a", "z")]), {"new": never})
    predictions(known_of(leaking.slice(0, 5)), pairs_of([("a", "z")]))


def test_planted_pair_is_refused_before_any_predictor_sees_it():
    with pytest.raises(DataError, match=r"1 scored pairs are among the known.*user b and item x"):
        predictions(known_of(KNOWN), pairs_of([("a", "z"), ("b", "x")]), {"new": never})


def test_unknown_users_and_items_are_no_leak():
    pairs = [(user, item) for user in ("new", "a", "b", "c") for item in ("unheard", "w", "x", "y", "z")]
    unseen = [pair for pair in pairs if pair not in {row[:2] for row in KNOWN}]
    assert len(predictions(known_of(KNOWN), pairs_of(unseen))["user mean"]) == 20 - len(KNOWN)


def test_a_predictor_is_told_no_label():
    told = []

    def new(known, pairs):
        told.append((len(known.interactions), pairs.column_names))
        return np.full(len(pairs), 0.25)

    pairs = pairs_of([("a", "z"), ("b", "y")]).append_column("label", pa.array([1, 0]))
    found = predictions(known_of(KNOWN), pairs, {"new": new})
    assert told == [(len(KNOWN), PAIRS.names)]
    assert {name: scores.tolist() for name, scores in found.items()} == {"new": [0.25, 0.25]}


@pytest.mark.parametrize("name", PREDICTORS)
def test_labels_of_known_rows_change_every_predictor(world, name):
    known, scored = world
    labels = 1 - known.interactions["label"].to_numpy()
    flipped = replace(known, interactions=with_column(known.interactions, "label", labels.astype(np.int8)))
    before, after = (PREDICTORS[name](rows, scored.pairs) for rows in (known, flipped))
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.5], r"'new' returned \(1,\) scores, expected one for each of 2 pairs"),
        ([0.5, 1.5], r"'new' returned 1.5, expected numbers in \[0, 1\]"),
        ([float("nan"), 0.5], "'new' returned nan"),
    ],
)
def test_a_predictor_that_returns_no_scores_is_named(scores, message):
    with pytest.raises(DataError, match=message):
        predictions(known_of(KNOWN), pairs_of([("a", "z"), ("b", "y")]), {"new": lambda known, pairs: np.array(scores)})


def test_bad_tables_are_named():
    pairs = pairs_of([("a", "z")])
    with pytest.raises(DataError, match="no known interactions"):
        predictions(known_of([]), pairs)
    with pytest.raises(DataError, match="no pairs to score"):
        predictions(known_of(KNOWN), pairs.slice(1))
    with pytest.raises(DataError, match="'split' is missing"):
        predictions(known_of(interactions(KNOWN).drop_columns(["split"])), pairs)
    with pytest.raises(DataError, match="pairs: column 'item_id' is missing"):
        predictions(known_of(KNOWN), pairs.drop_columns(["item_id"]))
    with pytest.raises(DataError, match="neither 0 nor 1"):
        predictions(known_of([("a", "w", 2)]), pairs)
