"""The endpoint on this machine: a Ray, Serve on ports of loopback, and the front proxy on the port that is shown.

Serve's own proxy is left out: every ingress replica listens itself, at one of a few ports, and the front asks those
that are there. A call costs a third of what it does through that proxy.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import serve

from optirag_core.config.settings import Settings
from ray_jobs.session import exit_on_sigterm, ray_session
from serve_apps.app import Doors, application
from serve_apps.front import CHECK_S, Front, FrontLimits, start_front

APP = "optirag"
LOOPBACK = "127.0.0.1"

NUM_PORTS = 24
"""For ingress replicas; that of one which has died is used again after a while."""

START_S = 30.0
DIRECT_INGRESS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # with it, replicas listen, and speak gRPC with each other
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",  # a replica that is to end is still asked for 0.25 s
    "RAY_SERVE_PORT_QUARANTINE_S": "10",
}


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
    ports = use_direct_ingress()
    _use_token(settings)
    with ray_session(settings.ray.model_copy(update={"num_cpus": _logical_cpus(settings)})):
        exit_on_sigterm()
        try:
            serve.start(http_options={"host": LOOPBACK, "port": _free_ports(1).start})
            serve.run(app, name=APP, route_prefix="/")
            backends = [f"{LOOPBACK}:{backend}" for backend in ports]
            with start_front(
                host, port, backends, settings.serving.max_body_bytes, tls_certificate=tls_certificate,
                limits=FrontLimits.of(settings.serving, num_backends=settings.serving.num_ingresses),
            ) as front:  # fmt: skip
                _await_replica(ports)
                yield front
        finally:
            serve.shutdown()


def update(settings: Settings, doors: Doors) -> None:
    """Roll to other settings, or to the newest artifacts: old replicas answer until new ones are ready."""
    serve.run(application(settings, doors), name=APP, route_prefix="/")


def _logical_cpus(settings: Settings) -> int:
    """Room for all replicas twice: an update starts new ones before it ends the old."""
    serving, actors = settings.serving, settings.actors
    builders = serving.max_context_builders or serving.num_context_builders or serving.num_ingresses
    reserved = serving.num_ingresses * serving.num_cpus_per_ingress
    reserved += (serving.max_scorers or serving.num_scorers) * actors.num_cpus_per_scorer
    reserved += builders * actors.num_cpus_per_prompt_builder
    return max(settings.ray.num_cpus, round(2 * reserved + 1))


def use_direct_ingress() -> range:
    """Have the Ray that is started from here let ingress replicas listen at these ports.

    In a process that has a Ray already, these are the ports that it was started with.
    """
    first, last = (f"RAY_SERVE_DIRECT_INGRESS_{end}_HTTP_PORT" for end in ("MIN", "MAX"))
    if first not in os.environ:
        ports = _free_ports(NUM_PORTS)
        os.environ.update(DIRECT_INGRESS | {first: str(ports.start), last: str(ports.stop)})
    return range(int(os.environ[first]), int(os.environ[last]))


def _use_token(settings: Settings) -> None:
    """Replicas unpickle what comes to a port of theirs that is open on all interfaces: from who has Ray's token."""
    if settings.ray.address == "local" and not ray.is_initialized():
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _free_ports(number: int) -> range:
    """Neighbouring ports of loopback that nobody has now."""
    while True:
        with socket.create_server((LOOPBACK, 0)) as server:
            first = server.getsockname()[1]
        ports = range(first, first + number)
        if ports.stop <= 65_536 and all(map(_is_free, ports)):
            return ports


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def _await_replica(ports: range) -> None:
    """Until the front has seen which of its servers are there: it takes all for well before it has asked them."""
    deadline = time.monotonic() + START_S
    while all(map(_is_free, ports)) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(4 * CHECK_S)
