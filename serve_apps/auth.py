"""Who may call: bearer tokens, of which the service holds SHA-256 hashes alone.

    python -m serve_apps.auth new --name NAME      a fresh token, shown once, and its line for the file

A file has one `NAME SHA256` per line; `#` begins a comment. It is looked at every second: tokens are added and taken
away without a restart. A token has 256 random bits, so that a plain hash of it tells nothing.
"""

import argparse
import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from optirag_core.errors import ConfigError
from serve_apps.errors import error_response

FILE_VARIABLE = "OPTIRAG_TOKEN_FILE"
HASHES_VARIABLE = "OPTIRAG_TOKEN_HASHES"
LOOK_S = 1.0
MAX_HEADER = 4096
"""Bytes of an Authorization header; a token of `new` has 43."""
MAX_FILE = 1 << 20
CHALLENGE = 'Basic realm="optirag", Bearer realm="optirag"'
"""Both with a realm: browsers do not ask for the password where the second has none."""

_LINE = re.compile(r"(\S{1,100})[ \t]+([0-9a-fA-F]{64})")
log = logging.getLogger(__name__)


class Tokens:
    """The hashes of the tokens that open the service, read anew when their file changes.

    Args:
        file: lines of `NAME SHA256`. An empty one lets nobody in.
        hashes: the same lines, or parted by commas, as an environment variable has them; they never change.
        clock: seconds.

    Raises:
        ConfigError: the file cannot be read, or a line is malformed.
    """

    def __init__(
        self, file: Path | None = None, hashes: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._clock = file, clock
        self._fixed = _parsed(hashes.replace(",", "\n"), HASHES_VARIABLE)
        self._looked, self._seen = clock(), None if file is None else _signature(file)
        self._from_file = () if file is None else _read(file)

    @classmethod
    def from_environment(cls, file: Path | None = None, environment: Mapping[str, str] = os.environ) -> "Tokens":
        """
        Args:
            file: instead of the one that the environment names.

        Raises:
            ConfigError: there is no source of tokens, or a malformed one.
        """
        named = environment.get(FILE_VARIABLE)
        file, hashes = file or (Path(named) if named else None), environment.get(HASHES_VARIABLE, "")
        if file is None and not hashes.strip():
            raise ConfigError(
                "no tokens, so nobody could call: make one with `python -m serve_apps.auth new --name NAME`, put its "
                f"line into a file and name it in {FILE_VARIABLE}, or let everybody in with --insecure-no-auth"
            )
        return cls(file, hashes)

    def accepts(self, token: bytes) -> bool:
        """Compared with every hash, whichever matches: time tells nothing."""
        self._look()
        asked, found = hashlib.sha256(token).digest(), False
        for known in (*self._fixed, *self._from_file):
            found |= hmac.compare_digest(asked, known)
        return found

    def _look(self) -> None:
        """Read the file again if it is another one. What cannot be read leaves the last good tokens in force."""
        if self._file is None or self._clock() - self._looked < LOOK_S:
            return
        self._looked = self._clock()
        signature = _signature(self._file)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._from_file = _read(self._file)
            log.info("tokens: read again, %d of them", len(self._from_file))
        except ConfigError as error:
            log.error("tokens: the last good %d stay in force: %s", len(self._from_file), error)


class RequireToken:
    """ASGI: 401 for every request without a valid token, before any of its body is read; no WebSockets.

    The token comes as `Authorization: Bearer TOKEN`, or as the password of HTTP Basic, which a browser asks for; the
    user name does not matter.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, open_paths: Sequence[str] = ("/healthz", "/readyz")) -> None:
        self.app, self.tokens, self.open_paths = app, tokens, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http" and not self._may_ask(scope):
            headers = {"WWW-Authenticate": CHALLENGE, "Connection": "close"}  # the body may still be coming
            refused = error_response(401, "unauthorized", "a valid token is needed", headers=headers)
            await refused(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _may_ask(self, scope: Scope) -> bool:
        if scope["path"] in self.open_paths:
            return True
        token = _presented([value for name, value in scope["headers"] if name.lower() == b"authorization"])
        return token is not None and self.tokens.accepts(token)


def _presented(headers: Sequence[bytes]) -> bytes | None:
    """The token of an Authorization header; None unless there is exactly one, well-formed."""
    if len(headers) != 1 or len(headers[0]) > MAX_HEADER or not headers[0].isascii():
        return None
    scheme, _, value = headers[0].partition(b" ")
    value = value.strip()
    if scheme.lower() == b"bearer":
        return value or None
    if scheme.lower() != b"basic":
        return None
    try:
        _, _, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password or None


def _signature(file: Path) -> tuple[int, ...] | None:
    """What changes with a file's content; None where there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(file: Path) -> tuple[bytes, ...]:
    try:
        with file.open("rb") as source:
            content = source.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ConfigError(f"{file}: more than {MAX_FILE:,} bytes, expected a line per token")
        return _parsed(content.decode(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name a file of tokens") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: no UTF-8 text, expected lines of `NAME SHA256`") from None


def _parsed(text: str, source: str) -> tuple[bytes, ...]:
    """Lines of `NAME SHA256` -> digests. Messages name the line and never its content, which may be a token."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{source}, line {number}: expected `NAME SHA256`, as `serve_apps.auth new` prints it")
        found.append(bytes.fromhex(match[2]))
    return tuple(found)


def new_token(name: str) -> tuple[str, str]:
    """Make a token.

    Args:
        name: whose it is.

    Returns:
        The token in clear, which nothing keeps, and its line for the file.

    Raises:
        ConfigError: no line can hold this name.
    """
    if _LINE.fullmatch(f"{name} {'0' * 64}") is None or "#" in name or "," in name:
        raise ConfigError("a token's name has 1 to 100 characters, without spaces, # and commas")
    token = secrets.token_urlsafe(32)
    return token, f"{name} {hashlib.sha256(token.encode()).hexdigest()}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m serve_apps.auth", description="tokens of the endpoint")
    new = parser.add_subparsers(required=True).add_parser("new", help="make a token")
    new.add_argument("--name", required=True, help="whose it is; without spaces")
    try:
        token, line = new_token(parser.parse_args(arguments).name)
    except ConfigError as error:
        parser.error(str(error))
    print(f"token, shown this once:  {token}")
    print(f"line for the file:       {line}")


if __name__ == "__main__":
    main()
