"""Where a training's figures go while it runs: TensorBoard's files, an MLflow server.

Not through Ray Train's callbacks: a `ray.train.report` returns when the controller has looked for it, 2.0 s each with
Ray 2.60's own interval, and where `num_workers` is 0 none of them is called.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar
from transformers.utils.generic import flatten_dict

from optirag_core.config.run import TrackingSettings
from optirag_core.errors import ConfigError
from optirag_core.recipes import Recipe
from ray_jobs.progress import Progress

log = logging.getLogger(__name__)
EXPERIMENT = "optirag"
METRICS_PER_REQUEST = 1000
"""As many as MLflow takes."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would report every run to its makers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own defaults keep a training waiting for minutes
}


Point = tuple[int, Mapping[str, float]]
"""A step and its figures."""


class Tracker(Protocol):
    """A training's run in a tracking system.

    What it cannot be told during a training is not worth the training: it warns, and then is told nothing more.
    """

    def log(self, points: Sequence[Point]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class Tracking:
    """One training in all tracking systems that the settings name."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers
        self._step = 0

    def add(self, points: Sequence[Progress]) -> None:
        self._step = points[-1].done
        for tracker in self._trackers:
            tracker.log([(point.done, point.figures) for point in points])

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """The numbers among an artifact's metrics, those of lists by their place, of the last step."""
        figures = {}
        for name, value in metrics.items():
            each = dict(enumerate(value)) if isinstance(value, list) else {None: value}
            for place, number in each.items():
                if isinstance(number, int | float):
                    figures[f"final/{name}" if place is None else f"final/{name}/{place}"] = number
        for tracker in self._trackers:
            tracker.log([(self._step, figures)])


@contextmanager
def tracking(settings: TrackingSettings, recipe: Recipe) -> Iterator[Tracking]:
    """The trackers of one training, which is named after its artifact; closed after the block.

    Raises:
        ConfigError: MLflow is not installed or does not answer, or TensorBoard's folder cannot be written to.
    """
    run = f"{recipe.kind}-{recipe.version}"
    made: list[Tracker] = []
    failed = True
    try:
        if settings.tensorboard:
            made.append(TensorBoard(settings.tensorboard, run))
        if settings.mlflow:
            made.append(Mlflow(settings.mlflow, run, recipe.config))
        yield Tracking(made)
        failed = False
    finally:
        for tracker in made:
            tracker.close(failed=failed)


class TensorBoard:
    """A folder of event files."""

    def __init__(self, folder: str, run: str) -> None:
        """
        Raises:
            ConfigError: the folder cannot be written to.
        """
        self._folder = Path(folder, run)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Not `SummaryWriter`: where the disk is full its thread dies, and the next figure waits for it for ever.
            self._writer: EventsWriter | None = EventsWriter(str(self._folder / "events"))
        except OSError as error:
            raise ConfigError(f"tracking.tensorboard {folder} cannot be written to: {error}") from None

    def log(self, points: Sequence[Point]) -> None:
        if self._writer is None:
            return
        try:
            for step, figures in points:
                for name, value in figures.items():
                    event = Event(summary=scalar(name, value), step=step, wall_time=time.time())
                    self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._writer = None
            log.warning("warning: TensorBoard is told nothing more of this training: %s: %s", self._folder, str(error))

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class Mlflow:
    """A run of an MLflow experiment."""

    def __init__(self, uri: str, run: str, config: Mapping[str, Any]) -> None:
        """
        Raises:
            ConfigError: MLflow is not installed or does not answer.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError:
            raise ConfigError("tracking.mlflow needs MLflow: pip install 'optirag[mlflow]'") from None
        self._mlflow, self._uri = mlflow, uri
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            known = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
            self._run: str | None = self._client.create_run(experiment, run_name=run).info.run_id
            params = [mlflow.entities.Param(name, str(value)) for name, value in flatten_dict(config).items()]
            self._client.log_batch(self._run, params=params)
        except mlflow.MlflowException as error:
            raise ConfigError(f"tracking.mlflow {uri} does not take a run: {' '.join(str(error).split())}") from None

    def log(self, points: Sequence[Point]) -> None:
        now_ms = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now_ms, step) for step, figures in points for name, value in figures.items()]
        for start in range(0, len(metrics), METRICS_PER_REQUEST):
            batch = metrics[start : start + METRICS_PER_REQUEST]
            self._tell(partial(self._client.log_batch, metrics=batch))

    def close(self, *, failed: bool) -> None:
        self._tell(partial(self._client.set_terminated, status="FAILED" if failed else "FINISHED"))

    def _tell(self, what: Callable[..., object]) -> None:
        if self._run is None:
            return
        try:
            what(self._run)
        except self._mlflow.MlflowException as error:
            self._run = None
            reason = " ".join(str(error).split())
            log.warning("warning: tracking.mlflow %s is told nothing more of this training: %s", self._uri, reason)
