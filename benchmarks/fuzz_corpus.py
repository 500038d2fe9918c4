"""What no client would send: bodies, requests and connections that parsers and bounds have failed on elsewhere."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

Body = dict[str, Any]

VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1E+400", b"9223372036854775808", b"1" * 400, b"1" * 5000, b"-0",
    b"0.1e-400", b"1.5", b"-1", b"2147483648", b"true", b"null", b"[]", b"{}", b'""', b'" "', b'"NaN"', b'"inf"',
    b'"1e999"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\uffff"', b'"\x00"', b'"\xff"', b'"\xed\xa0\x80"',
    b'"' + b"a" * 100_000 + b'"', b'"' + "\N{GRINNING FACE}".encode() * 300 + b'"', b'"{{ 7 * 7 }}"',
    b'"9999-12-31T23:59:59-23:59"', b'"0001-01-01T00:00:00+23:59"', b'"1970-01-01"', b"1e18", b"[" * 17 + b"]" * 17,
)  # fmt: skip
"""In the place of every field of every body."""

WHOLE = (
    b"", b" ", b"null", b"[]", b"{", b"{}{}", b'"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{" * 100_000,
    b'{"a":' * 100_000, b"[" * 500_000, b'{"user_id":"u"}'.decode().encode("utf-16"), b'"' + b"\\" * 500_001,
    b" " * 1_100_000,
    b'{"user_id": "a", "user_id": "b", "item_ids": ["c"]}', b'{"user_id": "a", "\\u0075ser_id": "b"}',
    b"{" + b",".join(b'"%d": 1' % number for number in range(50_000)) + b"}",
    b'{"user_id": "u", "item_ids": [' + b'"a",' * 100_000 + b'"a"]}',
    b'{"user_id": "u", "item_ids": ["a"], "__proto__": {}, "model": "s3://other/model", "url": "file:///etc/passwd"}',
)  # fmt: skip

TYPES = (
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "", "*/*",
    "application/json; charset=utf-16", "application/json, text/plain", "application/jsonp",
)  # fmt: skip

IDS = (
    "%00", "%0a", "%ff", "%ed%a0%80", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..", "%252e", "a" * 257, "a" * 7000,
    quote("\u202e"), quote("\N{GRINNING FACE}" * 100), "%", "%zz", "a;b", "a?b=c", "{user_id}", "%20", "a//b", "a\\b",
)  # fmt: skip

QUERIES = (
    "limit=0", "limit=-1", "limit=101", "limit=NaN", "limit=inf", "limit=1e9", "limit=" + "9" * 400, "limit=", "limit",
    "limit=1&limit=2", "query=" + "a" * 101, "query=%00", "query=%ff", "query=%ed%a0%80", "query=[", "query=(((((",
    "query=.*", "query=%5c", "query=" + quote("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}" * 100), "&&&=", "query[]=a",
    "%00=1", "unknown=1", "query=a" + "&a=b" * 1500,
)  # fmt: skip

METHODS = (
    "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "G\x00T", "X" * 40,
)  # fmt: skip

LENGTHS = (
    "Content-Length: -1", "Content-Length: 1x", "Content-Length: " + "9" * 30, "Content-Length:", "Content-Length: 9",
    "Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2\r\nTransfer-Encoding: chunked",
)  # fmt: skip

CHUNKS = (b"zz\r\n", b"-1\r\n", b"ffffffffffffffff1\r\n", b"2\r\n{}x", b"0\r\n" + b"a: b\r\n" * 5000 + b"\r\n")

TARGETS = (
    "http://other/v1/model", "*", "//", "/\x00", "/../../etc/passwd", "/-/routes", "/-/healthz", "other:80", "/ /",
)  # fmt: skip

NO_HTTP = (b"\r\n", b"GET\r\n", b"GET / HTTP/9.9\r\n", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n")

HEADERS = (
    "X-A: " + "a" * 17_000, "X-A: \x00", "X-A: \xff", "X_A: b", ": b", "X-A b", "X-A : b", " X-A: b", "Host:",
    "Host: other", "Expect: 100-continue", "Expect: 200-ok", "Upgrade: websocket", "Upgrade: h2c",
    "Content-Encoding: gzip", "Content-Encoding: br", "Accept: \xff", "Range: bytes=0-,0-,0-", "If-None-Match: *",
    "If-Modified-Since: never", "X-Forwarded-For: ' OR 1=1", "X-Request-Id: " + "a" * 5000, "Cookie: " + "a=b;" * 3000,
    "Authorization: Bearer twice", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, identity",
    "X-Request-Timeout-Seconds: NaN", "serve_multiplexed_model_id: ../../etc/passwd", "\r\n".join(["X-A: b"] * 200),
)  # fmt: skip


def valid_bodies(user_id: str, item_id: str) -> dict[str, Body]:
    """Route -> a body with every field."""
    asked = {
        "user_id": user_id, "as_of": None, "as_of_position": None, "position": 0,
        "history": [{"item_id": item_id, "rating": 5.0, "event_time": None}],
    }  # fmt: skip
    event = {"event_id": "fuzz", "user_id": user_id, "item_id": item_id, "rating": 5.0, "event_time": None}
    return {
        "/v1/score": {**asked, "item_ids": [item_id], "explain": False},
        "/v1/rank": {**asked, "item_ids": [item_id], "explain": False, "top_k": 1},
        "/v1/recommend": {**asked, "top_k": 1, "num_candidates": 5, "explain": False},
        "/v1/interactions": {"events": [event]},
    }


def broken_fields(body: Body) -> Iterator[bytes]:
    """The body with each of `VALUES` in the place of each field in turn."""
    for path in [path for path in _paths(body) if path]:
        marked = json.dumps(_with(body, path, "\ue000"), ensure_ascii=False).encode()
        yield from (marked.replace(b'"\xee\x80\x80"', value) for value in VALUES)


def requests(bodies: dict[str, Body], authorization: str) -> Iterator[tuple[str, bytes]]:
    """Route, and a whole request to it as bytes. Each is one that ends by itself."""

    def head(method: str, target: str, *lines: str) -> bytes:
        lines = ("Host: fuzz", f"Authorization: {authorization}", "Connection: close", *lines, "", "")
        return "\r\n".join((f"{method} {target} HTTP/1.1", *lines)).encode("latin-1")

    def post(route: str, body: bytes, *lines: str, kind: str = "application/json") -> bytes:
        return head("POST", route, f"Content-Type: {kind}", f"Content-Length: {len(body)}", *lines) + body

    for route, body in bodies.items():
        good = json.dumps(body).encode()
        yield from ((route, post(route, broken)) for broken in (*broken_fields(body), *WHOLE))
        yield from ((route, post(route, good, kind=kind)) for kind in TYPES)
        yield from ((route, post(route, good, line)) for line in HEADERS)
        yield from ((route, head(method, route)) for method in METHODS)
        kind = "Content-Type: application/json"
        yield from ((route, head("POST", route, kind, framing) + good) for framing in LENGTHS)
        yield from ((route, head("POST", route, kind, "Transfer-Encoding: chunked") + chunks) for chunks in CHUNKS)
    for name in IDS:
        yield "/v1/users", head("GET", f"/v1/users/{name}")
        yield from (("/v1/explain", head("GET", f"/v1/explain/{ids}")) for ids in (f"{name}/1", f"1/{name}"))
        yield from (("/", head("GET", f"{folder}/{name}")) for folder in ("", "/page"))
    for route in ("/v1/users", "/v1/items", "/v1/model", "/healthz", "/docs"):
        yield from ((route, head("GET", f"{route}?{query}")) for query in QUERIES)
        yield from ((route, head("GET", route, line)) for line in HEADERS)
        yield from ((route, head(method, route)) for method in METHODS[1:])
    yield from (("/", head("GET", target)) for target in TARGETS)
    yield from (("/", line + b"\r\n\r\n") for line in NO_HTTP)


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, key))


def _with(value: Any, path: tuple, new: Any) -> Any:
    """A copy with one part replaced."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy
