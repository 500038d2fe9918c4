"""Every scored pair gets the label of its own test row, or the run is refused."""

import pyarrow as pa
import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.labels import LabelledScores

from .conftest import TEST_POSITION, interactions, scores_of

TEST_ROWS = [("a", "y", 1), ("a", "z", 0), ("b", "y", 0)]
SCORED = [("b", "y", 0.25, 4, True), ("a", "z", 0.5, 2, False), ("a", "y", 0.75, 2, False)]


def test_three_pairs_by_hand():
    train = interactions([("a", "w", 0), ("b", "x", 1)])
    labelled = LabelledScores.of(scores_of(SCORED), pa.concat_tables([interactions(TEST_ROWS, "test"), train]))
    assert labelled.pairs.to_pydict() == {
        "user_id": ["a", "a", "b"], "item_id": ["y", "z", "y"], "as_of": [None] * 3,
        "as_of_position": [TEST_POSITION, TEST_POSITION, TEST_POSITION + 2],
    }  # fmt: skip
    assert labelled.users.tolist() == ["a", "a", "b"]
    assert labelled.labels.tolist() == [1, 0, 0]
    assert labelled.scores.tolist() == [0.75, 0.5, 0.25]
    assert labelled.exit_layers.tolist() == [2, 2, 4]
    assert labelled.cold_start.tolist() == [False, False, True]


def test_a_test_row_without_a_score_was_rejected_and_is_left_out():
    assert LabelledScores.of(scores_of(SCORED[:2]), interactions(TEST_ROWS, "test")).labels.tolist() == [0, 0]


@pytest.mark.parametrize("split", ["train", "tune", "validation"])
def test_a_pair_of_another_split_is_refused(split):
    known = interactions([("b", "y", 0)], split)
    with pytest.raises(DataError, match=r"1 of 3 scored pairs have no label.*user b and item y.*requests\.path"):
        LabelledScores.of(scores_of(SCORED), pa.concat_tables([interactions(TEST_ROWS[:2], "test"), known]))


def test_a_run_without_scores_is_refused():
    with pytest.raises(DataError, match="no scored pairs"):
        LabelledScores.of(scores_of([]), interactions(TEST_ROWS, "test"))


def test_missing_columns_are_named():
    with pytest.raises(DataError, match="scores: column 'cold_start' is missing"):
        LabelledScores.of(scores_of(SCORED).drop_columns(["cold_start"]), interactions(TEST_ROWS, "test"))
