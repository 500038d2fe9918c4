"""What a run says of itself is taken as it says it; a run of other requests is refused."""

from collections import Counter

import pytest

from optirag_core.errors import DataError
from optirag_core.evaluation.scored_run import ScoredRun, require_test_requests
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.totals import Totals

FIGURES = {
    "rejects": {"unknown_item": 2},
    "exits": {"3": 8},
    "scorer_pairs": 9,
    "scorer_seconds": 4.0,
}
"""One of the scorer's pairs has no finite score: it is a reject."""
SPLIT = {"split": "test", "max_users": None}


def fields_of(requests):
    return RunIdentity.of({"code_version": "0", "requests": requests, "plan": "ab" * 32}).fields


def test_takes_the_totals_of_a_run():
    metrics = Totals.of([Receipt(0, 8, 2, "", {}, FIGURES), Receipt(1, 8, 2, "", {}, FIGURES)]).metrics()
    run = ScoredRun.of(metrics)
    assert run == ScoredRun(16, {"unknown_item": 4}, 8.0, 2.25, dropped_entries=0, dropped_users=0)
    assert run.rejected == metrics["rejected"] == 4
    assert run.pairs_per_scorer_second == metrics["pairs_per_scorer_second"] == 2.25


def test_counts_what_prompts_had_to_leave_out():
    sums = Counter(FIGURES | {"dropped_entries": 5, "dropped_users": 1})
    run = ScoredRun.of(Totals.of([Receipt(number, 8, 2, "", {}, sums) for number in range(3)]).metrics())
    assert (run.dropped_entries, run.dropped_users) == (15, 3)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_run_that_took_no_time_is_refused(seconds):
    with pytest.raises(DataError, match=f"scorer_seconds is {seconds}"):
        ScoredRun.of({"scored": 1, "rejects": {}, "scorer_seconds": seconds, "pairs_per_scorer_second": 1.0})


@pytest.mark.parametrize("requests", [SPLIT, SPLIT | {"max_users": 500, "seed": 0}])
def test_the_test_splits_own_requests_are_accepted(requests):
    require_test_requests(fields_of(requests))


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"files": {"night/b.parquet": "ab", "a.parquet": "cd"}}, "requests in a.parquet, night/b.parquet, expected"),
        ({"files": {f"{n}.parquet": "ab" for n in range(9)}}, r"0.parquet, 1.parquet, 2.parquet, \.\.\., expected"),
        ({"users": "all", "all_items_top_k": 20}, "requests of all users, filled with the retriever's 20 best items"),
        ({"files": {"a.parquet": "ab"}, "all_items_top_k": 5}, "requests in a.parquet, filled with the retriever's 5"),
        (SPLIT | {"all_items_top_k": 5}, "requests of split test, filled with the retriever's 5 best items"),
        ({"split": "validation"}, "requests of split validation, expected the test split's own"),
        ({}, "requests of split unknown"),
    ],
)
def test_other_requests_are_refused(requests, message):
    with pytest.raises(DataError, match=rf"{message}.*run score without requests\.path"):
        require_test_requests(fields_of(requests))
