"""An earlier run and its artifacts are the newest again."""

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing
from optirag_core.rollback import roll_back
from optirag_core.runs.reader import read_scores
from optirag_core.storage.base import open_storage
from tests.erasure.dying import Killed, dying
from tests.evaluation.committed_runs import commit_run, save_dataset

MONDAY, TUESDAY = {("a", "1"): (0.25, 2)}, {("a", "1"): (0.75, 2)}


@pytest.fixture
def uri(tmp_path):
    """Monday was scored with data set d1, Tuesday with d2."""
    uri = str(tmp_path / "w")
    first = save_dataset(uri, [("a", "1", 1)])
    commit_run(uri, "monday", MONDAY, dataset=first)
    second = save_dataset(uri, [("a", "1", 0)], "d2")
    commit_run(uri, "tuesday", TUESDAY, dataset=second)
    return uri


def back(uri, name, storage=None):
    settings = StorageSettings()
    return roll_back(Workspace(uri, settings), storage or open_storage(uri, settings), name)


def newest(uri):
    return Workspace(uri).latest("dataset"), Workspace(uri).latest("scores")


def test_readers_and_jobs_get_the_earlier_ones_and_the_later_stay(uri):
    assert newest(uri) == ("d2", "tuesday")

    assert back(uri, "monday") == {"dataset": "d1", "scores": "monday"}

    assert newest(uri) == ("d1", "monday")
    assert read_scores(f"{uri}/scores")["score"].to_pylist() == [0.25]
    assert read_scores(f"{uri}/scores/tuesday")["score"].to_pylist() == [0.75]
    back(uri, "tuesday")
    assert newest(uri) == ("d2", "tuesday")


@pytest.mark.parametrize(("step", "after"), [(1, False), (1, True), (2, False)])
def test_killed_in_the_middle_it_finishes_when_run_again(uri, step, after):
    with pytest.raises(Killed):
        back(uri, "monday", dying(open_storage(uri, StorageSettings()), step, after=after))
    back(uri, "monday")
    assert newest(uri) == ("d1", "monday")


def test_what_is_gone_or_damaged_is_named_and_nothing_changes(uri):
    with pytest.raises(ArtifactMissing, match=r"scores/sunday is not committed"):
        back(uri, "sunday")
    storage = open_storage(uri, StorageSettings())
    [file] = [path for path in storage.list("scores/monday/attempts") if path.endswith("-scores.parquet")]
    content = storage.read(file)
    storage.delete(file)
    with pytest.raises(ArtifactCorrupt, match=r"-scores\.parquet is missing"):
        back(uri, "monday")
    storage.write(file, content)
    (Workspace(uri).open("dataset", "d1").path / "info.json").write_text("{ }")
    with pytest.raises(ArtifactCorrupt, match=r"dataset/d1/info\.json differs"):
        back(uri, "monday")
    Workspace(uri).remove("dataset", "d1")
    with pytest.raises(ArtifactMissing, match=r"scores/monday was scored with dataset [0-9a-f]{12}, which is not in"):
        back(uri, "monday")
    assert newest(uri) == ("d2", "tuesday")
