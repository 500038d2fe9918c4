"""TensorBoard's event files and an MLflow store, read back."""

import struct

import pytest
from mlflow import MlflowClient
from tensorboardX.proto.event_pb2 import Event

from optirag_core.config.run import TrackingSettings
from optirag_core.errors import ConfigError
from optirag_core.recipes import Recipe
from ray_jobs.progress import Progress
from ray_jobs.trackers import tracking

RECIPE = Recipe("llm", {"llm": {"learning_rate": 0.01, "modules": ["q", "v"]}, "seed": 0}, {})
RUN = f"llm-{RECIPE.version}"
POINTS = [Progress(1, 2, {"loss": 0.75}), Progress(2, 2, {"loss": 0.5, "validation_loss": 0.25})]
METRICS = {"validation_auc": 0.875, "validation_loss": [0.5, None, 0.25], "curve": {"loss": [[1, 0.75]]}}
LOGGED = [
    ("loss", 1, 0.75), ("loss", 2, 0.5), ("validation_loss", 2, 0.25), ("final/validation_auc", 2, 0.875),
    ("final/validation_loss/0", 2, 0.5), ("final/validation_loss/2", 2, 0.25),
]  # fmt: skip


def scalars(folder):
    """(name, step, value) of the event files: records of length, checksum, event, checksum."""
    found = []
    for file in sorted(folder.glob("events.*")):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    return found


def test_tensorboard(tmp_path):
    with tracking(TrackingSettings(tensorboard=str(tmp_path)), RECIPE) as tracked:
        tracked.add(POINTS)
        tracked.add_metrics(METRICS)
    assert scalars(tmp_path / RUN) == LOGGED


@pytest.mark.parametrize("small_disk", [16 * 1024], indirect=True)
def test_a_full_disk_ends_no_training(small_disk, caplog):
    many = [Progress(step, 1000, {"loss": 0.5}) for step in range(1000)]
    with tracking(TrackingSettings(tensorboard=str(small_disk)), RECIPE) as tracked:
        tracked.add(many)
        tracked.add(many)
    (message,) = caplog.messages
    assert "TensorBoard is told nothing more of this training" in message
    assert "No space left" in message


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"tracking\.tensorboard .*file cannot be written to"),
        tracking(TrackingSettings(tensorboard=str(tmp_path / "file")), RECIPE),
    ):
        pass


@pytest.fixture
def mlflow_uri(tmp_path, monkeypatch):
    """A store without a server: what MLflow's client does with it, it does with a server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file:{tmp_path / 'mlruns'}"


def only_run(uri):
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("optirag").experiment_id])
    return client, run


def test_mlflow(mlflow_uri):
    with tracking(TrackingSettings(mlflow=mlflow_uri), RECIPE) as tracked:
        tracked.add(POINTS)
        tracked.add_metrics(METRICS)
    client, run = only_run(mlflow_uri)
    assert (run.info.run_name, run.info.status) == (RUN, "FINISHED")
    assert run.data.params == {"llm.learning_rate": "0.01", "llm.modules": "['q', 'v']", "seed": "0"}
    names = dict.fromkeys(name for name, _, _ in LOGGED)
    logged = [
        (name, point.step, point.value) for name in names for point in client.get_metric_history(run.info.run_id, name)
    ]
    assert logged == LOGGED


def test_a_failed_training_is_a_failed_run(mlflow_uri):
    with pytest.raises(ConfigError, match="nan"), tracking(TrackingSettings(mlflow=mlflow_uri), RECIPE) as tracked:
        tracked.add(POINTS)
        raise ConfigError("the loss became nan")
    assert only_run(mlflow_uri)[1].info.status == "FAILED"


def test_what_mlflow_does_not_take_ends_no_training(mlflow_uri, caplog):
    with tracking(TrackingSettings(mlflow=mlflow_uri), RECIPE) as tracked:
        tracked.add(POINTS[:1])
        client, run = only_run(mlflow_uri)
        client.delete_run(run.info.run_id)
        tracked.add(POINTS[1:])
        tracked.add(POINTS[1:])
    (message,) = caplog.messages
    assert "is told nothing more of this training" in message


def test_no_store_at_the_uri(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"tracking\.mlflow .*nothing-known.* does not take a run"),
        tracking(TrackingSettings(mlflow="nothing-known://host"), RECIPE),
    ):
        pass
