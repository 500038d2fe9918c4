import logging

import pyarrow as pa
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.training.finished_features import FinishedFeatures

KIND = ".training/exit_features-1234"
TABLE = pa.table(
    {"label": pa.array([1, 0], pa.int8()), "layer_5": pa.array([[0.5, 1.5], [2.5, 3.5]], pa.list_(pa.float32(), 2))}
)


@pytest.fixture(params=["local", "s3"])
def workspace(request, tmp_path):
    if request.param == "local":
        return Workspace(str(tmp_path / "workspace"))
    return Workspace(request.getfixturevalue("s3_bucket"))


@pytest.mark.s3
def test_what_was_written_is_read_by_its_requests_alone(workspace):
    finished = FinishedFeatures(workspace, KIND)
    finished.write(64, 128, TABLE)
    assert finished.read(64, 128).equals(TABLE)
    assert finished.read(0, 64) is None
    assert finished.read(64, 96) is None  # shards of another size answer other requests
    workspace.remove(KIND)
    assert finished.read(64, 128) is None


def test_damaged_features_are_not_there(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    finished = FinishedFeatures(Workspace(str(tmp_path)), KIND)
    finished.write(0, 64, TABLE)
    (file,) = tmp_path.rglob("features.parquet")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert finished.read(0, 64) is None
    assert "requests 0 to 64 are answered again" in caplog.text
