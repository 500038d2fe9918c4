"""The endpoint on this machine: a Ray, Serve on a port of loopback, and the front proxy on the port that is shown."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray import serve

from optirag_core.config.settings import Settings
from ray_jobs.session import exit_on_sigterm, ray_session
from serve_apps.app import Doors, application
from serve_apps.front import Front, start_front

APP = "optirag"
LOOPBACK = "127.0.0.1"


@contextmanager
def started(
    settings: Settings, doors: Doors, *, host: str = LOOPBACK, port: int = 0, tls_certificate: Path | None = None
) -> Iterator[Front]:
    """Start all of it, and end it.

    Args:
        port: 0 takes a free one.
        tls_certificate: PEM of a certificate chain and its key; None speaks plain HTTP.

    Raises:
        ArtifactError, ConfigError: as `application`, before anything is started.
    """
    app = application(settings, doors)
    with ray_session(settings.ray.model_copy(update={"num_cpus": _logical_cpus(settings)})):
        exit_on_sigterm()
        backend = _free_port()
        try:
            serve.start(http_options={"host": LOOPBACK, "port": backend})
            serve.run(app, name=APP, route_prefix="/")
            with start_front(
                host, port, LOOPBACK, backend, settings.serving.max_body_bytes, tls_certificate=tls_certificate
            ) as front:
                yield front
        finally:
            serve.shutdown()


def update(settings: Settings, doors: Doors) -> None:
    """Roll to other settings, or to the newest artifacts: old replicas answer until new ones are ready."""
    serve.run(application(settings, doors), name=APP, route_prefix="/")


def _logical_cpus(settings: Settings) -> int:
    """Room for all replicas twice: an update starts new ones before it ends the old."""
    serving, actors = settings.serving, settings.actors
    reserved = serving.num_ingresses * serving.num_cpus_per_ingress
    reserved += (serving.max_scorers or serving.num_scorers) * actors.num_cpus_per_scorer
    reserved += (serving.max_context_builders or serving.num_context_builders) * actors.num_cpus_per_prompt_builder
    return max(settings.ray.num_cpus, round(2 * reserved + 1))


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]
