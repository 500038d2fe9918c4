"""What a request's body may be, before anything buffers or parses it: its size, its time, its type, strict JSON.

The front proxy cuts off the same earlier (`serve_apps/haproxy.cfg`); this holds where somebody reaches the app itself.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.errors import error_response
from serve_apps.strict_json import NotStrict, check_json

MAX_BODY_BYTES = 1 << 20
BODY_TIMEOUT_S = 10.0


class Refused(Exception):
    """A body that is not taken: status, code and message of the answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class LimitBodies:
    """ASGI: POST takes one JSON body of at most `max_bytes`, complete within `timeout_s`. No other method's is read."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app, self.max_bytes, self.timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        try:
            self._check_headers(scope)
            body = await self._body(receive)
            if body is None:
                return None  # the client has gone
            check_json(body)
        except Refused as error:
            # What is left of the body must not be read as the next request.
            headers = {"Connection": "close"}
            refused = error_response(error.status, error.code, str(error), headers=headers)
            return await refused(scope, receive, send)
        except NotStrict as error:
            refused = error_response(400, "malformed", str(error), [error.path] if error.path else [])
            return await refused(scope, receive, send)
        return await self.app(scope, _replayed(body, receive), send)

    def _check_headers(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refused(415, "unsupported_media_type", "Content-Type must be application/json")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(415, "unsupported_media_type", "a compressed body is not read")
        self._check_size(int(headers.get(b"content-length", b"0")))  # the server takes numbers of 64 bits alone

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise Refused(413, "body_too_large", f"a body has at most {self.max_bytes:,} bytes")

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, counted as it comes; None if the client goes before its end."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    self._check_size(len(body))
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, "body_too_slow", f"a body has to come within {self.timeout_s:g} s") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if the body had just come; behind it, the connection's own messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
