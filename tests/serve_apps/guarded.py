"""A small app with all guards, on a real uvicorn, and clients that write to it byte by byte."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from serve_apps.auth import RequireToken, Tokens
from serve_apps.errors import answer_errors
from serve_apps.limits import LimitBodies
from serve_apps.schemas import ScoreRequest

TOKEN = "a-token-of-the-tests"
HASHES = f"tests {hashlib.sha256(TOKEN.encode()).hexdigest()}"
MAX_BODY_BYTES = 100_000
SCORE = json.dumps({"user_id": "u", "item_ids": ["a", "b"]}).encode()


class Seen:
    """What reached the app's routes."""

    def __init__(self) -> None:
        self.bodies: list[int] = []  # number of item_ids of each


def guarded_app(seen: Seen | None = None, body_timeout_s: float = 10.0) -> FastAPI:
    """The guards as the endpoint has them, the innermost first."""
    app, seen = FastAPI(), seen or Seen()

    @app.post("/v1/score")
    async def score(request: ScoreRequest) -> int:
        seen.bodies.append(len(request.item_ids))
        return len(request.item_ids)

    @app.post("/v1/slow")
    async def slow(request: ScoreRequest) -> int:
        await asyncio.sleep(0.5)
        return 0

    @app.get("/v1/fails")
    async def fails() -> None:
        raise RuntimeError("the title of a book")

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    app.add_middleware(LimitBodies, max_bytes=MAX_BODY_BYTES, timeout_s=body_timeout_s)
    app.add_middleware(RequireToken, tokens=Tokens(hashes=HASHES))
    answer_errors(app)
    return app


@contextmanager
def served(app: ASGIApp, log_level: str = "critical") -> Iterator[int]:
    """Yields the port of a uvicorn in a thread of this process, without an access log, as in Serve."""
    config = uvicorn.Config(
        app, port=0, log_level=log_level, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(timeout=5)


def head(method: str, path: str, *lines: str, token: str | None = TOKEN) -> bytes:
    """A request up to its body."""
    lines = ("Host: test", *((f"Authorization: Bearer {token}",) if token else ()), *lines)
    return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "", "")).encode()


def post(body: bytes = SCORE, *lines: str, path: str = "/v1/score", token: str | None = TOKEN) -> bytes:
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", *lines)
    return head("POST", path, *lines, token=token) + body


def exchanged(port: int, *parts: bytes, timeout_s: float = 5.0) -> list[int]:
    """Statuses of all answers until the server closes or is silent."""
    return [status for status, _ in answers(port, *parts, timeout_s=timeout_s)]


def answers(port: int, *parts: bytes, timeout_s: float = 5.0) -> list[tuple[int, str]]:
    """Status and the rest of every answer until the server closes, or nothing comes for `timeout_s`."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while got := connection.recv(65536):
                received += got
        except (TimeoutError, ConnectionError):
            pass
    found = received.decode().split("HTTP/1.1 ")[1:]
    return [(int(answer[:3]), answer) for answer in found]


def connections(port: int, first: bytes, count: int) -> Sequence[socket.socket]:
    """Open connections, each of which has sent the same beginning."""
    opened = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(first)
        opened.append(connection)
    return opened
