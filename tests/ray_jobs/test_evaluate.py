"""Evaluation refuses runs that were asked for something else than the test split."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.data.dataset import Dataset
from optirag_core.errors import DataError
from ray_jobs.evaluate import evaluate
from ray_jobs.score import score
from tests.finished_run import changed

pytestmark = pytest.mark.ray


@pytest.fixture
def newest_run(finished_run):
    """The scores at hand stay the newest."""
    workspace = Workspace(finished_run.workspace)
    version = workspace.latest("scores")
    yield finished_run
    workspace.select("scores", version)


def test_test_pairs_asked_without_their_moment_are_refused(newest_run, tmp_path):
    """Without `as_of` their prompts show the ratings of later test rows."""
    interactions = Dataset.load(Workspace(newest_run.workspace).open("dataset").path).interactions.to_pylist()
    pairs = [{name: row[name] for name in ("user_id", "item_id")} for row in interactions if row["split"] == "test"]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    score(changed(newest_run, requests={"path": str(tmp_path / "pairs.parquet")}))

    with pytest.raises(DataError, match=r"scores are of requests in pairs\.parquet, expected the test split's own"):
        evaluate(newest_run)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_with_a_pointer_of_its_own_is_the_one_that_is_evaluated(own_workspace):
    workspace, aside = Workspace(own_workspace.workspace), changed(own_workspace, run={"pointer": "LATEST-test"})
    score(changed(own_workspace, run={"name": "night"}))
    score(changed(aside, run={"name": "measured"}))

    report = evaluate(aside)

    assert report.manifest["parents"]["scores"] == workspace.open("scores", "measured").digest
    assert workspace.latest("scores") == "night"
