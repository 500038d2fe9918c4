"""Rows of prompts and pair scores -> scores and rejects, by hand."""

import math

import pyarrow as pa
import pytest

from optirag_core.data.schema import REJECTS, SCORES
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.inference.answers import answer
from optirag_core.inference.prompts import PROMPTS, groups_of

UNKNOWN = {"item_id": "x", "error_code": "unknown_item", "error": "item 'x' is not in the items table"}
ROWS = [
    {
        "user_id": "u", "as_of": None, "as_of_position": 3, "prefix": [1, 2], "suffixes": [[3], [4, 5]],
        "evidence": [[0.5, -1.0], [0.0, 2.0]],
        "item_ids": ["a", "b"], "rejects": [UNKNOWN], "num_similar_users": 2, "cold_start": False,
        "dropped_entries": 4, "dropped_users": 1,
    },
    {
        "user_id": "v", "as_of": None, "as_of_position": None, "prefix": [], "suffixes": [],
        "evidence": None, "item_ids": [],
        "rejects": [UNKNOWN], "num_similar_users": 0, "cold_start": True, "dropped_entries": 0, "dropped_users": 0,
    },
]  # fmt: skip
NAMES = {"run_id": "r", "model_version": "m"}


def prompts(rows=ROWS):
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def test_a_row_of_prompts_is_a_group_of_the_scorer():
    assert groups_of(prompts()) == [
        UserGroup([1, 2], [[3], [4, 5]], [[0.5, -1.0], [0.0, 2.0]]),
        UserGroup([], []),
    ]


def test_every_pair_is_in_scores_or_rejects_once():
    answers = answer(prompts(), [[PairScore(0.25, 3), PairScore(0.5, 5)], []], **NAMES)

    assert (answers.scores.schema, answers.rejects.schema) == (SCORES, REJECTS)
    first, second = answers.scores.to_pylist()
    assert (first["user_id"], first["item_id"], first["score"], first["exit_layer"]) == ("u", "a", 0.25, 3)
    assert (second["item_id"], second["score"], second["exit_layer"]) == ("b", 0.5, 5)
    assert (second["num_similar_users"], second["cold_start"], second["run_id"], second["model_version"]) == (
        2, False, "r", "m",
    )  # fmt: skip
    assert [(row["user_id"], row["as_of_position"], row["error_code"]) for row in answers.rejects.to_pylist()] == [
        ("u", 3, "unknown_item"), ("v", None, "unknown_item"),
    ]  # fmt: skip


def test_what_prompts_left_out_is_added_up():
    answers = answer(prompts([ROWS[0], ROWS[0]]), [[PairScore(0.5, 3)] * 2] * 2, **NAMES)

    assert (answers.dropped_entries, answers.dropped_users) == (8, 2)


def test_no_prompts_are_no_answers():
    answers = answer(prompts([]), [], **NAMES)

    assert (len(answers.scores), len(answers.rejects), answers.dropped_entries) == (0, 0, 0)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_becomes_a_reject_with_the_requests_own_columns(score):
    answers = answer(prompts(), [[PairScore(score, 3), PairScore(0.5, 5)], []], **NAMES)

    assert answers.scores["item_id"].to_pylist() == ["b"]
    codes = {row["item_id"]: row["error_code"] for row in answers.rejects.to_pylist()}
    assert codes == {"x": "unknown_item", "a": "score_not_finite"}


def test_scores_for_other_groups_than_asked_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        answer(prompts(), [[PairScore(0.5, 3)] * 2], **NAMES)
