"""Hidden states are expensive: what a killed job has finished is not computed again."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.training.exit_features import read_features
from optirag_core.training.finished_features import FinishedFeatures
from ray_jobs import exit_features as job

pytestmark = pytest.mark.ray


class Killed(Exception):
    """Ends the driver in the middle, as SIGKILL would: nothing else of it runs."""


@pytest.mark.thorough
def test_a_killed_job_goes_on_after_what_is_finished(own_workspace, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    workspace = tmp_path / "workspace"
    shutil.copytree(own_workspace.workspace, workspace, ignore=shutil.ignore_patterns("exit_features"))
    settings = own_workspace.model_copy(update={"workspace": str(workspace)})
    monkeypatch.setattr(job, "REQUESTS_PER_SHARD", 30)
    written, write = [], FinishedFeatures.write

    def until_the_third(finished, start, stop, table):
        if len(written) == 2:
            raise Killed
        written.append(start)
        write(finished, start, stop, table)

    monkeypatch.setattr(FinishedFeatures, "write", until_the_third)
    with pytest.raises(Killed):
        job.exit_features(settings)
    assert not Workspace(settings.workspace).has("exit_features")

    monkeypatch.setattr(FinishedFeatures, "write", lambda finished, start, *rest: written.append(start))
    made = job.exit_features(settings)

    num_shards = len(list(made.path.glob("*.parquet")))
    assert f"exit features: 2 of {num_shards} shards are finished already" in caplog.messages
    assert sorted(written) == [30 * number for number in range(num_shards)]  # each once
    undisturbed = Workspace(own_workspace.workspace).open("exit_features").path
    for purpose in ("heads", "policy", "test"):
        came, expected = read_features(made.path, purpose), read_features(undisturbed, purpose)
        assert came.users.tolist() == expected.users.tolist()
        assert came.items.tolist() == expected.items.tolist()
        np.testing.assert_allclose(came.states.states, expected.states.states, atol=1e-5)
    assert not Path(settings.workspace, ".training").exists()
