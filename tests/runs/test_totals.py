"""What shards add up to, by hand."""

import pyarrow as pa
import pytest

from optirag_core.runs.attempts import Receipt
from optirag_core.runs.totals import Totals, counted


def receipt(scored, rejected, **counts):
    return Receipt(0, scored, rejected, "", {}, {"rejects": {}, "exits": {}} | counts)


def test_a_shard_by_hand():
    scores = pa.table({"exit_layer": pa.array([3, 5, 3], pa.int16())})
    rejects = pa.table({"error_code": ["unknown_item", "null_user", "unknown_item"]})

    assert counted(scores, rejects, dropped_users=4) == {
        "rejects": {"unknown_item": 2, "null_user": 1}, "exits": {"3": 2, "5": 1}, "dropped_users": 4,
    }  # fmt: skip


def test_two_shards_by_hand():
    totals = Totals.of(
        [
            receipt(3, 1, rejects={"unknown_item": 1}, exits={"3": 2, "5": 1}, dropped_entries=7, useful_gflop=0.5),
            receipt(1, 3, rejects={"unknown_item": 2, "null_user": 1}, exits={"5": 1}, dropped_entries=1),
        ]
    )

    metrics = totals.metrics()

    assert (totals.shards, totals.pairs) == (2, 8)
    assert (metrics["scored"], metrics["rejected"]) == (4, 4)
    assert metrics["rejects"] == {"null_user": 1, "unknown_item": 3}
    assert metrics["exits"] == {"3": 2, "5": 2}
    assert metrics["mean_exit_layer"] == (3 * 2 + 5 * 2) / 4
    assert (metrics["dropped_entries"], metrics["useful_gflop"]) == (8, 0.5)


def test_a_scorers_rate_is_of_the_pairs_that_it_was_given():
    """10 pairs: 2 were rejected before a scorer saw them, 1 for its score. The scorers had 8 pairs in 4 seconds."""
    totals = Totals.of(
        [
            receipt(4, 2, rejects={"unknown_item": 2}, scorer_pairs=4, scorer_seconds=1.0),
            receipt(3, 1, rejects={"score_not_finite": 1}, scorer_pairs=4, scorer_seconds=3.0),
        ]
    )

    assert totals.metrics()["pairs_per_scorer_second"] == 2.0


@pytest.mark.parametrize("receipts", [[], [receipt(0, 2, rejects={"unknown_item": 2})]], ids=["none", "all rejected"])
def test_where_nothing_was_scored_rates_are_zero(receipts):
    metrics = Totals.of(receipts).metrics()

    assert (metrics["mean_exit_layer"], metrics["pairs_per_scorer_second"]) == (0.0, 0.0)
