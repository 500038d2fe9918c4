import pytest

from optirag_core.config import settings_from
from optirag_core.data.dataset import Dataset
from ray_jobs.prepare_data import prepare_data


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
