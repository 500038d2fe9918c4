"""An HTTP proxy in front of an S3 server that injects one kind of fault into a share of the requests.

The Host header goes through unchanged, so that signatures stay valid.
"""

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

Mode = Literal["unavailable", "hang", "truncate", "lost_reply", "delay"]
UNAVAILABLE = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Reduce your rate.</Message></Error>"
OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "server", "date"}


class FaultyProxy:
    """`with FaultyProxy(endpoint, mode="hang", rate=0.1, seed=0) as proxy:` and clients talk to `proxy.url`.

    Modes:
        unavailable: 503 instead of an answer.
        hang: no answer until the client gives up.
        truncate: half of a GET's body, then the connection closes.
        lost_reply: a PUT reaches the server, its answer does not reach the client.
        delay: the answer comes `delay_s` later.
    """

    def __init__(
        self, endpoint: str, *, mode: Mode, rate: float, seed: int = 0, limit: int | None = None, delay_s: float = 0.2
    ) -> None:
        """`limit` is the largest number of faults."""
        self.mode, self.rate, self.limit, self.delay_s = mode, rate, limit, delay_s
        self.fired = 0
        self.requests = 0
        self.closed = threading.Event()
        self.server_address = urlsplit(endpoint).netloc
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def fires(self, method: str) -> bool:
        """Whether this request gets the fault; counts it."""
        with self._lock:
            self.requests += 1
            fits = {"truncate": method == "GET", "lost_reply": method == "PUT"}.get(self.mode, True)
            allowed = self.limit is None or self.fired < self.limit
            fires = fits and allowed and self._random.random() < self.rate
            self.fired += fires
            return fires


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.mode if self.proxy.fires(self.command) else None
        if fault == "unavailable":
            self._answer(503, [("Content-Type", "application/xml")], UNAVAILABLE)
            return
        if fault == "hang":
            self.proxy.closed.wait(60)
            self.close_connection = True
            return
        status, headers, content = self._ask(body)
        if fault == "lost_reply":
            self.close_connection = True
            return
        if fault == "delay":
            self.proxy.closed.wait(self.proxy.delay_s)
        self._answer(status, headers, content, torn=fault == "truncate")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self.proxy.server_address, timeout=60)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in OF_ONE_HOP:
                    server.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                server.putheader("Content-Length", str(len(body)))
            server.endheaders(body or None)
            answer = server.getresponse()
            content = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in OF_ONE_HOP]
            if self.command == "HEAD":
                headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            return answer.status, headers, content
        finally:
            server.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, torn: bool = False) -> None:
        try:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if torn else content)
        except OSError:  # the client gave up meanwhile
            self.close_connection = True
        self.close_connection |= torn

    def log_message(self, *_: object) -> None:
        """Tests count faults, not lines."""
