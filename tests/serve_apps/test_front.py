import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from optirag_core.errors import ConfigError
from serve_apps.front import FrontLimits, start_front
from tests.serve_apps.guarded import (
    MAX_BODY_BYTES,
    SCORE,
    Seen,
    answers,
    connections,
    exchanged,
    guarded_app,
    head,
    post,
    served,
)

JSON = "Content-Type: application/json"
CLOSE = "Connection: close"
QUICK = FrontLimits(headers_timeout_s=0.5, body_timeout_s=0.8, keep_alive_timeout_s=0.5, client_timeout_s=1.0)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def backend(seen: Seen) -> Iterator[int]:
    with served(guarded_app(seen)) as port:
        yield port


@pytest.fixture(scope="module")
def front(backend: int) -> Iterator[int]:
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES, limits=QUICK) as running:
        yield running.port


def _post(*lines: str) -> bytes:
    return head("POST", "/v1/score", JSON, *lines)


def test_requests_pass(front: int) -> None:
    assert exchanged(front, post() + post(SCORE, CLOSE)) == [200, 200]
    assert exchanged(front, post(SCORE + b" " * (MAX_BODY_BYTES - len(SCORE)), CLOSE)) == [200]
    assert exchanged(front, post(SCORE, CLOSE, token="wrong")) == [401]
    assert exchanged(front, head("GET", "/healthz", CLOSE, token=None)) == [200]


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (413, _post("Content-Length: 200000000")),
        (404, head("GET", "/-/routes", CLOSE)),
        (404, head("GET", "/%2D/healthz", CLOSE)),
        (405, head("TRACE", "/", CLOSE)),
        (405, head("PUT", "/v1/score", CLOSE)),
        (414, head("GET", "/" + "x" * 9000, CLOSE)),
        (431, head("GET", "/", "X-Long: " + "x" * 17_000, CLOSE)),
        (403, head("GET", "/", "X_Underscore: m", CLOSE)),
    ],
)
def test_what_never_reaches_the_service(status: int, sent: bytes, front: int, seen: Seen) -> None:
    before = len(seen.bodies)
    [(answered, text)] = answers(front, sent)
    assert answered == status and len(seen.bodies) == before
    assert json.loads(text.split("\r\n\r\n", 1)[1])["problem"]["code"]


@pytest.mark.parametrize(
    "sent",
    [
        b"?\r\n\r\n",
        _post("Content-Length: 2", "Content-Length: 3") + b"{}",
        _post("Content-Length: -1"),
        _post("Transfer-Encoding: chunked") + b"zz\r\n",
        head("GET", "/", "X: a\0b"),
        head("GET", "/a b"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(sent: bytes, front: int) -> None:
    assert set(exchanged(front, sent, timeout_s=3)) == {400}


def test_two_framings_of_a_body_become_one(front: int) -> None:
    """The chunks count; what the length would make of the rest is not answered."""
    both = _post("Content-Length: 2", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SCORE), SCORE)
    assert exchanged(front, both + post()) == [200]


def test_an_endless_body_is_cut_off(front: int, seen: Seen) -> None:
    """200 MB in chunks, of which the front takes one buffer."""
    before, sent = len(seen.bodies), 0
    with socket.create_connection(("127.0.0.1", front), timeout=5) as connection:
        connection.sendall(_post("Transfer-Encoding: chunked"))
        try:
            while sent < 200_000_000:
                connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
        except ConnectionError:
            pass
    assert sent < 20_000_000 and len(seen.bodies) == before


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"", [408]),
        (b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-A: ", [408]),
        (_post("Content-Length: 90") + b"{", [408]),
        (_post("Transfer-Encoding: chunked") + b"1\r\n{\r\n", [408]),
        (post(), [200]),  # and idle then
    ],
)
def test_the_slow_are_cut_off(first: bytes, status: list[int], front: int, seen: Seen) -> None:
    """A byte now and then does not keep a connection."""
    received, started = b"", time.monotonic()
    with socket.create_connection(("127.0.0.1", front), timeout=0.1) as connection:
        connection.sendall(first)
        while time.monotonic() < started + 10:
            try:
                if not (got := connection.recv(65536)):
                    break
                received += got
            except TimeoutError:
                if first and status == [408]:
                    connection.sendall(b"x" if b"chunked" not in first else b"1\r\n \r\n")
            except ConnectionError:
                break
    assert time.monotonic() < started + 5
    assert [int(answer[:3]) for answer in received.decode().split("HTTP/1.1 ")[1:]] in (status, status[:-1])


def test_slow_callers_take_nobodys_place(front: int) -> None:
    """100 that are slow; everybody else is answered meanwhile."""
    slow = connections(front, b"GET /healthz HTTP/1.1\r\nX: ", 50) + connections(front, _post("Content-Length: 90"), 50)
    assert [exchanged(front, post(SCORE, CLOSE)) for _ in range(20)] == [[200]] * 20
    for connection in slow:
        connection.settimeout(5)
        while connection.recv(65536):
            pass
        connection.close()


def test_a_full_queue_is_refused_at_once(backend: int) -> None:
    limits = replace(QUICK, max_in_flight=2, max_queue=2)
    asked = post(SCORE, CLOSE, path="/v1/slow")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics = taken.getsockname()[1]
    with (
        start_front(
            "127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES, limits=limits, metrics=f"127.0.0.1:{metrics}"
        ) as running,
        ThreadPoolExecutor(12) as callers,
    ):
        waiting = [callers.submit(answers, running.port, asked) for _ in range(12)]
        time.sleep(0.2)
        assert exchanged(running.port, head("GET", "/healthz", CLOSE)) == [200]  # a full service is alive
        found = [answer for future in waiting for answer in future.result()]
        [(_, counted)] = answers(metrics, head("GET", "/metrics", CLOSE))
        assert exchanged(metrics, head("GET", "/", CLOSE)) == [404]
    refused = [text for status, text in found if status in (429, 503)]
    refused_at_once = sum(status == 429 for status, _ in found)
    assert f'haproxy_backend_http_requests_total{{proxy="refused"}} {refused_at_once}\n' in counted
    assert len(found) == 12 and {status for status, _ in found} <= {200, 429, 503}
    assert 4 <= len(refused) <= 10 and all("retry-after: 2" in text.lower() for text in refused)


def test_no_backend_is_503_with_retry_after() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{port}"], MAX_BODY_BYTES) as running:
        [(status, text)] = answers(running.port, post(SCORE, CLOSE))
    assert status == 503 and "retry-after: 2" in text.lower()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def _scripted(*replies: bytes) -> Iterator[tuple[int, list[str]]]:
    """A backend that answers its connections so, one after the other; yields its port, and what it has received."""
    received: list[str] = []

    def listen(server: socket.socket) -> None:
        for reply in replies:
            connection, _ = server.accept()
            with connection:
                received.append(connection.recv(65536).decode().lower())
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        thread.join(timeout=5)


def test_callers_do_not_steer_serve() -> None:
    """Serve's own headers, and who the caller is, are the front's to say."""
    steering = (
        "X-Request-Timeout-Seconds: 9",
        "X-Request-Disconnect-Disabled: 1",
        "X-Forwarded-For: 8.8.8.8",
        "Serve-Multiplexed-Model-Id: m",
        "X-Request-Id: \xff",
        "X-Session-Id: s",
        "Traceparent: t",
        "Upgrade: h2c",
    )
    with (
        _scripted(OK) as (port, received),
        start_front("127.0.0.1", 0, [f"127.0.0.1:{port}"], MAX_BODY_BYTES) as running,
    ):
        assert exchanged(running.port, head("GET", "/", *steering, CLOSE)) == [200]
    assert not any(word in received[0] for word in ("x-request", "upgrade", "8.8.8.8", "model_id"))
    assert "x-forwarded-for: 127.0.0.1" in received[0]


def test_a_connection_that_ends_without_an_answer_is_tried_once_more() -> None:
    with (
        _scripted(b"", OK, b"", b"", OK) as (port, received),
        start_front("127.0.0.1", 0, [f"127.0.0.1:{port}"], MAX_BODY_BYTES) as running,
    ):
        assert exchanged(running.port, post(SCORE, CLOSE)) == [200]
        assert received[0] == received[1]
        [(status, text)] = answers(running.port, post(SCORE, CLOSE))
        assert status == 503 and "retry-after: 2" in text.lower() and len(received) == 4
        assert exchanged(running.port, post(SCORE, CLOSE)) == [200]


def test_one_source_does_not_hold_all_connections(backend: int) -> None:
    limits = replace(QUICK, max_connections_per_source=5, headers_timeout_s=5, client_timeout_s=5)
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES, limits=limits) as running:
        opened = [socket.socket() for _ in range(8)]
        for connection in opened:
            with suppress(ConnectionError):  # it is cut at once
                connection.connect(("127.0.0.1", running.port))
        time.sleep(0.3)
        assert sum(map(_is_open, opened)) == 5
        for connection in opened:
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_tls(backend: int, tmp_path: Path) -> None:
    pem = tmp_path / "front.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_bytes((tmp_path / "certificate").read_bytes() + (tmp_path / "key").read_bytes())
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate"))
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES, tls_certificate=pem) as running:
        plain = socket.create_connection(("127.0.0.1", running.port))
        with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(post(SCORE, CLOSE))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert exchanged(running.port, post(SCORE, CLOSE)) == []  # no plain HTTP beside it


def test_a_taken_port_and_a_bad_certificate_are_refused(backend: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{backend}"):
        start_front("127.0.0.1", backend, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES)
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="refuses the front's configuration"):
        start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES, tls_certificate=tmp_path / "none.pem")


def test_the_command_passes_requests_and_its_proxy_ends_with_it(backend: int) -> None:
    command = [sys.executable, "-m", "serve_apps.front", "--config", "ray_jobs/configs/demo.yaml", "--port", "0"]
    command += ["--backend", f"127.0.0.1:{backend}", "--serving.max_body_bytes", str(MAX_BODY_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        said = parent.stdout.readline()
        address, to = said.split(" -> ")
        assert to.strip() == f"127.0.0.1:{backend}"
        assert exchanged(int(address.rpartition(":")[2]), post(SCORE, CLOSE)) == [200]
        [front] = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while front.is_running() and front.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not front.is_running() or front.status() == psutil.STATUS_ZOMBIE


def test_it_has_nowhere_to_log_to(backend: int) -> None:
    """Paths hold ids: no file, terminal or syslog is open."""
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES) as running:
        assert exchanged(running.port, post(SCORE, CLOSE)) == [200]
        opened = [str(link.readlink()) for link in Path(f"/proc/{running.pid}/fd").iterdir()]
        tables = [Path(f"/proc/net/{kind}").read_text().splitlines()[1:] for kind in ("udp", "udp6")]
    files = {target for target in opened if target.startswith("/") and "haproxy_startup_logs" not in target}
    assert files == {"/dev/null"}  # that of the startup is memory, for what its configuration says
    sockets = {target[8:-1] for target in opened if target.startswith("socket:")}
    assert sockets and not sockets & {line.split()[9] for table in tables for line in table}
