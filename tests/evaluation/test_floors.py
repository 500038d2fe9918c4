"""Floors against hand-computed means, a slow loop that really deletes each row, and planted leaks."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from optirag_core.errors import DataError
from optirag_core.evaluation.floors import PRIOR_WEIGHT, floor_scores

from .conftest import interactions

KNOWN = [("a", "w", 1), ("a", "x", 1), ("a", "y", 0), ("b", "w", 1), ("b", "x", 0), ("c", "z", 0)]


def pairs_of(rows):
    return pa.table({"user_id": [row[0] for row in rows], "item_id": [row[1] for row in rows]})


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values))


def test_three_users_four_items_by_hand():
    floors = floor_scores(interactions(KNOWN), pairs_of([("a", "z"), ("b", "y"), ("c", "w"), ("new", "unheard")]))
    assert list(floors) == ["global mean", "user mean", "item mean", "logistic regression"]
    assert floors["global mean"].tolist() == [0.5] * 4
    # 3 more labels of 0.5: a (2 + 1.5) / (3 + 3), b (1 + 1.5) / (2 + 3), c (0 + 1.5) / (1 + 3), unknown 0.5
    assert floors["user mean"] == pytest.approx([3.5 / 6, 0.5, 0.375, 0.5])
    # z and y 1.5 / (1 + 3), w (2 + 1.5) / (2 + 3), unknown 0.5
    assert floors["item mean"] == pytest.approx([0.375, 0.375, 0.7, 0.5])


def slow_floors(known, pairs):
    """Loops; the features of a known row come from the list without that row."""

    def mean(rows, column, value):
        labels = [row[2] for row in rows if row[column] == value]
        prior = sum(row[2] for row in rows) / len(rows)
        return (sum(labels) + PRIOR_WEIGHT * prior) / (len(labels) + PRIOR_WEIGHT)

    def features(rows, pair):
        columns = []
        for column in (0, 1):
            share = mean(rows, column, pair[column])
            count = sum(row[column] == pair[column] for row in rows)
            columns += [np.log(share / (1 - share)), np.log1p(count)]
        return columns

    fitted = LogisticRegression().fit(
        [features(known[:i] + known[i + 1 :], row) for i, row in enumerate(known)], [row[2] for row in known]
    )
    return {
        "global mean": [sum(row[2] for row in known) / len(known)] * len(pairs),
        "user mean": [mean(known, 0, pair[0]) for pair in pairs],
        "item mean": [mean(known, 1, pair[1]) for pair in pairs],
        "logistic regression": fitted.predict_proba([features(known, pair) for pair in pairs])[:, 1],
    }


def test_equals_the_slow_loop(world):
    known, scored = (
        [tuple(row[name] for name in ("user_id", "item_id", "label")) for row in table.to_pylist()] for table in world
    )
    known, pairs = known[:300], [*scored[:60], ("new", "i1"), ("u1", "unheard")]
    floors = floor_scores(interactions(known), pairs_of(pairs))
    expected = slow_floors(known, pairs)
    for name, values in floors.items():
        assert values == pytest.approx(np.array(expected[name]), abs=1e-9), name


def test_logistic_regression_beats_the_means_on_a_world_of_both(summary):
    aucs = {name: floor["auc"] for name, floor in summary["floors"].items()}
    assert max(aucs, key=aucs.get) == "logistic regression"


def test_planted_test_row_is_refused():
    splits = ["train", "tune", "validation", "train", "train", "test"]
    leaking = with_column(interactions(KNOWN), "split", splits)
    with pytest.raises(DataError, match="1 rows of the test split"):
        floor_scores(leaking, pairs_of([("a", "z")]))
    floor_scores(leaking.slice(0, 5), pairs_of([("a", "z")]))


def test_planted_pair_is_refused():
    with pytest.raises(DataError, match=r"1 scored pairs are among the known.*user b and item x"):
        floor_scores(interactions(KNOWN), pairs_of([("a", "z"), ("b", "x")]))


def test_unknown_users_and_items_are_no_leak():
    pairs = [(user, item) for user in ("new", "a", "b", "c") for item in ("unheard", "w", "x", "y", "z")]
    unseen = [pair for pair in pairs if pair not in {row[:2] for row in KNOWN}]
    assert len(floor_scores(interactions(KNOWN), pairs_of(unseen))["user mean"]) == 20 - len(KNOWN)


def test_labels_of_the_pairs_change_nothing(world):
    known, scored = world
    flipped = with_column(scored, "label", (1 - scored["label"].to_numpy()).astype(np.int8))
    before, after = floor_scores(known, scored), floor_scores(known, flipped)
    assert all((before[name] == after[name]).all() for name in before)


def test_labels_of_known_rows_do_change_the_floors(world):
    known, scored = world
    flipped = with_column(known, "label", (1 - known["label"].to_numpy()).astype(np.int8))
    before, after = floor_scores(known, scored), floor_scores(flipped, scored)
    assert not any(np.allclose(before[name], after[name]) for name in before)


@pytest.mark.parametrize("labels", [(1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_without_both_classes_the_regression_is_the_global_mean(labels):
    rows = [("a", "w", labels[0]), ("a", "x", labels[1]), ("b", "w", labels[2])]
    floors = floor_scores(interactions(rows), pairs_of([("b", "x")]))
    assert floors["logistic regression"] == pytest.approx(floors["global mean"])
    assert floors["global mean"] == pytest.approx([np.mean(labels)])


def test_bad_tables_are_named():
    pairs = pairs_of([("a", "z")])
    with pytest.raises(DataError, match="no known interactions"):
        floor_scores(interactions([]), pairs)
    with pytest.raises(DataError, match="no pairs to score"):
        floor_scores(interactions(KNOWN), pairs.slice(1))
    with pytest.raises(DataError, match="'split' is missing"):
        floor_scores(interactions(KNOWN).drop_columns(["split"]), pairs)
    with pytest.raises(DataError, match="pairs: column 'item_id' is missing"):
        floor_scores(interactions(KNOWN), pairs.drop_columns(["item_id"]))
    with pytest.raises(DataError, match="neither 0 nor 1"):
        floor_scores(interactions([("a", "w", 2)]), pairs)
