import os
from pathlib import Path

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.inference.opening import TRAINED
from optirag_core.runs.reader import read_scores
from optirag_core.storage.base import open_storage
from ray_jobs.prepare_data import prepare_data
from ray_jobs.score import score
from tests.finished_run import driver


@pytest.mark.s3
def test_a_job_leaves_its_artifact_in_a_bucket(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = settings_from(
        {"workspace": f"{s3_bucket}/run", "dataset": {"synthetic": {"num_users": 60, "num_books": 40}}}
    )
    made = prepare_data(settings)
    again = prepare_data(settings)
    assert again.manifest == made.manifest
    assert len(Dataset.load(again.path).items) > 0


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.thorough
def test_a_bucket_is_scored_like_a_folder(own_workspace, s3_bucket, tmp_path):
    storage, root = open_storage(s3_bucket, StorageSettings()), Path(own_workspace.workspace)
    for kind in TRAINED:
        for file in sorted((root / kind).rglob("*")):
            if file.is_file():
                storage.upload(file, file.relative_to(root).as_posix())
    settings = own_workspace.model_copy(update={"workspace": s3_bucket})

    process = driver(settings, tmp_path, "night")

    assert process.wait(240) == 0, (tmp_path / "night.log").read_text()[-3000:]
    score(own_workspace)
    columns = ["user_id", "item_id", "score", "exit_layer"]
    ours, local = (read_scores(f"{uri}/scores").select(columns) for uri in (s3_bucket, own_workspace.workspace))
    assert ours.equals(local)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in (tmp_path / "night.log").read_text() + (tmp_path / "night.yaml").read_text()
    assert not [path for path in storage.list("scores") if secret.encode() in storage.read(path)]
