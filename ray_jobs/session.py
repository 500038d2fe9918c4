"""The Ray that a job runs on, a local one that the job starts and shuts down or the cluster's, and its errors."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from optirag_core.config.run import RaySettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ConfigError, OptiragError

MIB = 2**20

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # a local Ray would write a token file under HOME
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default, without its warning
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",  # instead of 2: a training's end is seen three seconds sooner
}


EXIT_CODE = 2
"""Of a command that an `OptiragError` has ended."""
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable in the driver of `ray job submit`."""
WORKING_DIRS = "working_dir_files"
"""Folder of Ray's session that holds the submitted working directories."""


def check_submitted(settings: Settings) -> None:
    """Refuse settings that cannot work in a driver that `ray job submit` has started.

    Raises:
        ConfigError: it would start a Ray inside of the cluster's, or keep artifacts where Ray removes them.
    """
    if SUBMITTED not in os.environ:
        return
    if settings.ray.address == "local":
        raise ConfigError("ray.address is local, but `ray job submit` runs this on a cluster: add --ray.address auto")
    for name, place in (("workspace", settings.workspace), ("tracking.tensorboard", settings.tracking.tensorboard)):
        if place and WORKING_DIRS in Path(place).parts:
            raise ConfigError(
                f"{name} {Path(place).name} lies in the job's working directory, which Ray removes: give a folder that "
                "all machines share" + (", or s3://bucket/prefix" if name == "workspace" else "")
            )


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """Run the body on Ray; a session that is already there is used and left alone.

    An error of a worker reaches the driver as an exception; everything else is in Ray's session log.
    """
    if ray.is_initialized():
        yield
        return
    if settings.address != "local":
        ray.init(address=settings.address, logging_level=logging.WARNING, log_to_driver=False)
    else:
        for name, value in LOCAL_ENVIRONMENT.items():
            if name != "RAY_AUTH_MODE" or "RAY_AUTH_TOKEN" not in os.environ:  # Ray asks for a token that there is
                os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=settings.num_cpus,
            include_dashboard=False,
            object_store_memory=settings.object_store_mib * MIB,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    exit_on_sigterm()  # ray.init has set a handler of its own
    try:
        yield
    finally:
        ray.shutdown()


def exit_on_sigterm() -> None:
    """SIGTERM ends this process like an exception does: what it holds is released."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An `OptiragError` ends this process with one line and `EXIT_CODE`."""
    try:
        yield
    except OptiragError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None


def own_error(error: BaseException | None) -> OptiragError | None:
    """The `OptiragError` that a worker raised, out of what Ray wrapped it in."""
    if error is None or isinstance(error, OptiragError):
        return error
    inner = [error.__cause__, getattr(error, "cause", None), *getattr(error, "worker_failures", {}).values()]
    return next(filter(None, map(own_error, inner)), None)
