"""What a caller sends shows up in no log at the default level: planted in every place of a request, then looked for."""

import json
import logging

import pytest

from serve_apps.front import start_front
from tests.serve_apps.guarded import MAX_BODY_BYTES, TOKEN, exchanged, guarded_app, head, post, served

PLANTED = "planted-7f3a"
CLOSE = "Connection: close"


def _planted() -> list[bytes]:
    """A secret in every place of a request, in such that are answered and such that are refused."""
    history = [{"item_id": PLANTED, "rating": 1}]
    good = json.dumps({"user_id": PLANTED, "item_ids": [PLANTED], "history": history}).encode()
    bodies = [
        good,
        good.replace(b"rating", PLANTED.encode()),
        good.replace(b": 1}", b": NaN}"),
        good[:-1],
        good + b" " * MAX_BODY_BYTES,
    ]
    return [
        *(post(body, CLOSE) for body in bodies),
        *(post(good, CLOSE, token=token) for token in (None, PLANTED)),
        post(good, CLOSE, path=f"/v1/{PLANTED}"),
        head("GET", f"/v1/users/{PLANTED}?query={PLANTED}", f"X-Planted: {PLANTED}", CLOSE),
        head("GET", "/v1/fails", f"Cookie: {PLANTED}", CLOSE),
        head(PLANTED.upper(), f"/{PLANTED}", CLOSE),
        f"{PLANTED}\r\n\r\n".encode(),
    ]


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    requests = _planted()
    with caplog.at_level(logging.INFO), served(guarded_app(), log_level="info") as backend:
        with start_front("127.0.0.1", 0, [f"127.0.0.1:{backend}"], MAX_BODY_BYTES) as front:
            statuses = {status for request in requests for status in exchanged(front.port, request)}
        statuses |= {status for request in requests for status in exchanged(backend, request)}
    assert statuses == {200, 400, 401, 404, 405, 413, 422, 500}
    logged = caplog.text + "".join(capfd.readouterr())
    assert "RuntimeError" in logged and "Invalid HTTP request" in logged  # both loggers are seen here
    for secret in (PLANTED, TOKEN, "the title of a book"):
        assert secret.lower() not in logged.lower()
