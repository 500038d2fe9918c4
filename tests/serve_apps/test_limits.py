import json

import pytest

from serve_apps.errors import RETRY_AFTER_S
from serve_apps.limits import LimitBodies
from tests.serve_apps.guarded import MAX_BODY_BYTES, SCORE, Seen, answers, exchanged, guarded_app, head, post, served

JSON = "Content-Type: application/json"
CLOSE = "Connection: close"


def _post(*lines: str) -> bytes:
    """A request up to its body."""
    return head("POST", "/v1/score", *lines)


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _sized(size: int) -> bytes:
    """A valid body of that many bytes."""
    return SCORE + b" " * (size - len(SCORE))


def test_bodies_up_to_the_limit_reach_the_route() -> None:
    seen = Seen()
    with served(guarded_app(seen)) as port:
        assert exchanged(port, post(_sized(MAX_BODY_BYTES), CLOSE)) == [200]
        chunked = _post(JSON, CLOSE, "Transfer-Encoding: chunked") + _chunked(SCORE[:5], SCORE[5:])
        assert exchanged(port, chunked) == [200]
        assert exchanged(port, post(SCORE) + post(SCORE, CLOSE)) == [200, 200]  # one connection
        assert exchanged(port, head("GET", "/v1/score", CLOSE)) == [405]
    assert seen.bodies == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("status", "code", "sent"),
    [
        (413, "body_too_large", post(_sized(MAX_BODY_BYTES + 1))),
        (413, "body_too_large", _post(JSON, "Content-Length: 200000000")),  # nothing of it is sent
        (413, "body_too_large", _post(JSON, "Content-Length: 9223372036854775807")),
        (413, "body_too_large", _post(JSON, "Transfer-Encoding: chunked") + _chunked(b" " * 60_000, b" " * 60_000)),
        (415, "unsupported_media_type", _post("Content-Length: 2") + b"{}"),
        (415, "unsupported_media_type", _post("Content-Type: text/plain", "Content-Length: 2") + b"{}"),
        (415, "unsupported_media_type", post(SCORE, "Content-Encoding: gzip")),
    ],
)
def test_a_refused_body_ends_the_connection(status: int, code: str, sent: bytes) -> None:
    seen = Seen()
    with served(guarded_app(seen)) as port:
        # the request behind it may be the body's rest, and is not answered
        [(answered, text)] = answers(port, sent, timeout_s=3)
    assert answered == status and json.loads(text.split("\r\n\r\n")[1])["problem"]["code"] == code
    assert "connection: close" in text.lower() and not seen.bodies


def test_a_slow_body_is_refused() -> None:
    with served(guarded_app(body_timeout_s=0.2)) as port:
        assert exchanged(port, _post(JSON, "Content-Length: 9") + b"{", timeout_s=3) == [408]


def test_the_path_of_what_is_wrong_is_told() -> None:
    cases = {
        b'{"user_id": "u", "item_ids": ["a", 1e999]}': (400, ["body.item_ids.1"]),
        b'{"user_id": "u", "item_ids": ["a", 5]}': (422, ["body.item_ids.1"]),
        b'{"user_id": NaN, "item_ids": ["a"]}': (400, []),
        b'{"user_id": "u"}': (422, ["body.item_ids"]),
    }
    with served(guarded_app()) as port:
        for body, (status, fields) in cases.items():
            [(answered, text)] = answers(port, post(body, CLOSE))
            assert (answered, json.loads(text.split("\r\n\r\n")[1])["fields"]) == (status, fields)


def test_a_caller_that_goes_reaches_no_route() -> None:
    seen = Seen()
    with served(guarded_app(seen)) as port:
        assert exchanged(port, _post(JSON, "Content-Length: 90") + SCORE, timeout_s=0.2) == []
        assert exchanged(port, post(SCORE, CLOSE)) == [200]
    assert seen.bodies == [2]


def test_defaults_are_those_of_the_issue() -> None:
    limits = LimitBodies(guarded_app())
    assert (limits.max_bytes, limits.timeout_s, RETRY_AFTER_S) == (2**20, 10.0, 2)
