"""Where a training's figures go while it runs: TensorBoard's files, an MLflow server.

Not through Ray Train's callbacks: a `ray.train.report` returns when the controller has looked for it, 2.0 s each with
Ray 2.60's own interval, and where `num_workers` is 0 none of them is called.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from tensorboardX import SummaryWriter
from transformers.utils.generic import flatten_dict

from optirag_core.config.run import TrackingSettings
from optirag_core.errors import ConfigError
from optirag_core.recipes import Recipe
from ray_jobs.progress import Progress

log = logging.getLogger(__name__)
EXPERIMENT = "optirag"


class Tracker(Protocol):
    """A training's run in a tracking system."""

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class Tracking:
    """One training in all tracking systems that the settings name."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers
        self._step = 0

    def add(self, points: Sequence[Progress]) -> None:
        for point in points:
            self._step = point.done
            self._log(point.figures)

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """The numbers among an artifact's metrics, of the last step."""
        self._log({f"final/{name}": value for name, value in metrics.items() if isinstance(value, int | float)})

    def _log(self, figures: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(self._step, figures)


@contextmanager
def tracking(settings: TrackingSettings, recipe: Recipe) -> Iterator[Tracking]:
    """The trackers of one training, which is named after its artifact; closed after the block.

    Raises:
        ConfigError: MLflow is not installed or does not answer.
    """
    run, made = f"{recipe.kind}-{recipe.version}", []
    if settings.tensorboard:
        made.append(TensorBoard(settings.tensorboard, run))
    if settings.mlflow:
        made.append(Mlflow(settings.mlflow, run, recipe.config))
    failed = True
    try:
        yield Tracking(made)
        failed = False
    finally:
        for tracker in made:
            tracker.close(failed=failed)


class TensorBoard:
    """A folder of event files."""

    def __init__(self, folder: str, run: str) -> None:
        self._writer = SummaryWriter(logdir=f"{folder}/{run}")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class Mlflow:
    """A run of an MLflow experiment.

    What it cannot be told during a training is not worth the training: then it is told nothing more.
    """

    def __init__(self, uri: str, run: str, config: Mapping[str, Any]) -> None:
        """
        Raises:
            ConfigError: MLflow is not installed or does not answer.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report every run to its makers
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

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, value, now_ms, step) for name, value in figures.items()]
        self._tell(lambda run: self._client.log_batch(run, metrics=metrics))

    def close(self, *, failed: bool) -> None:
        self._tell(lambda run: self._client.set_terminated(run, "FAILED" if failed else "FINISHED"))

    def _tell(self, what: Callable[[str], None]) -> None:
        if self._run is None:
            return
        try:
            what(self._run)
        except self._mlflow.MlflowException as error:
            self._run = None
            reason = " ".join(str(error).split())
            log.warning("warning: tracking.mlflow %s is told nothing more of this training: %s", self._uri, reason)
