"""JSON without what parsers disagree on: NaN, twofold keys, lone surrogates, endless nesting, numbers that overflow.

`json` and pydantic take the last of two equal keys, and `json` takes NaN and any depth up to its stack: a body could
mean one thing here and another in what reads it next. Checked here, and parsed again by FastAPI: at 1 MiB that costs
milliseconds (`benchmarks/results/guard.json`).
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from serve_apps.errors import field_path

MAX_DEPTH = 16
INT64 = range(-(2**63), 2**63)

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive and open-ended: linear on any input
_OPENING, _CLOSING = b"[{", b"]}"
_SUSPICIOUS = re.compile(rb"[0-9]{19}|[0-9][eE]|\\u[dD][89a-fA-F]")
"""Bodies without it can hold no number beyond 64 bits, no infinity and no surrogate: most need no second look."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class NotStrict(ValueError):
    """A body is refused; `path` is where, "" if unknown. The message repeats nothing of the body."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def check_json(body: bytes) -> None:
    """
    Raises:
        NotStrict: it is no JSON that everybody reads alike.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotStrict(f"byte {error.start} is no UTF-8") from None
    if _depth(body) > MAX_DEPTH:
        raise NotStrict(f"nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise NotStrict(f"no JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except NotStrict:
        raise
    except ValueError:  # Python's own limit of 4,300 digits
        raise NotStrict("a number has too many digits") from None
    if _SUSPICIOUS.search(body):
        for problem, path in _unsafe(value, ("body",)):
            raise NotStrict(problem, field_path(path))


def _depth(body: bytes) -> int:
    """Deepest nesting of brackets outside of strings. Known before parsing, which would recurse."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return 0
    characters = np.frombuffer(_STRING.sub(b"", body), np.uint8)
    steps = np.isin(characters, list(_OPENING)).astype(np.int32) - np.isin(characters, list(_CLOSING))
    return int(steps.cumsum().max(initial=0))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("an object has a key twice")
    return found


def _no_number(_: str) -> NoReturn:
    raise NotStrict("NaN and Infinity are no JSON")


def _unsafe(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """What is wrong with single values, and where."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ((problem, path) for problem, _ in _unsafe(key, path))
            yield from _unsafe(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unsafe(inner, (*path, index))
    elif isinstance(value, str):
        if _SURROGATE.search(value):
            yield "half of a surrogate pair is no character", path
    elif isinstance(value, float) and math.isinf(value):
        yield "a number is beyond what 64 bits hold", path
    elif isinstance(value, int) and value not in INT64:
        yield "an integer is beyond what 64 bits hold", path
