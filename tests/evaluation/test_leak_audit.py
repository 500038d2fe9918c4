"""A finished workspace keeps every leak rule, and all of it is looked at."""

import pyarrow.parquet as pq
import pytest

from optirag_core.data.splits import requests_for
from optirag_core.evaluation.leak_audit import audit, check_retriever
from optirag_core.inference.opening import TRAINED, open_artifacts

from .leak_world import broken, changed


@pytest.fixture(scope="module")
def checks(finished_run):
    return audit(finished_run, open_artifacts(finished_run, *TRAINED))


def test_a_finished_workspace_has_no_leak(checks):
    assert broken(checks) == []
    assert [check.name for check in checks if not check.checked] == []
    assert {check.example for check in checks} == {None}


def test_everything_is_looked_at(finished_run, checks):
    """Counts against the tables: all interactions, edges, test pairs, and what prompts show."""
    artifacts = open_artifacts(finished_run, *TRAINED)
    rows = pq.read_table(artifacts["dataset"].path / "interactions.parquet")
    counts = {check.name: check.checked for check in checks}
    of_split = dict(zip(*(rows.group_by("split").aggregate([([], "count_all")]).columns), strict=True))
    of_split = {split.as_py(): count.as_py() for split, count in of_split.items()}
    assert len(counts) == len(checks)
    assert counts["a pair is in one split, once"] == len(rows)
    assert counts["an edge of the graph is a training interaction"] == of_split["train"]
    assert counts["evidence of an asked pair's item counts what came before the request"] == of_split["test"]
    num_asking = len(requests_for(rows, "test"))
    assert counts["a similar user is somebody else"] <= finished_run.prompt.num_similar_users * num_asking
    shown = "a shown mean of ratings is of training interactions before the request"
    assert counts[shown] == counts["a similar user is somebody else"] + num_asking


def test_a_planted_edge_shows_in_the_vector(finished_run):
    """The finished run's real vectors against a table with one training row more, and with one less."""
    artifacts = open_artifacts(finished_run, "dataset", "retriever")
    rows = pq.read_table(artifacts["dataset"].path / "interactions.parquet")
    splits = rows["split"].to_pylist()
    for old, new in (("test", "train"), ("train", "validation")):
        row = splits.index(old)
        *_, check = check_retriever(artifacts["retriever"], changed(rows, row, split=new))
        assert (check.violations, check.example) == (1, f"user_id {rows['user_id'][row]}")
