import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.strict_json import MAX_DEPTH, NotStrict, check_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def _depth(value: object) -> int:
    """The slow, obvious version."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, inner), default=0)


@given(VALUES, st.integers(0, MAX_DEPTH + 2), st.booleans())
def test_what_json_writes_is_taken_unless_it_is_deep(value: object, wraps: int, escaped: bool) -> None:
    for _ in range(wraps):
        value = [value]
    body = json.dumps(value, ensure_ascii=escaped).encode()
    if _depth(value) <= MAX_DEPTH:
        check_json(body)
    else:
        with pytest.raises(NotStrict, match="nested"):
            check_json(body)


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\u0dD8e19.-NaInfity '), max_size=60).map(str.encode))
def test_any_bytes_end_in_json_or_not_strict(body: bytes) -> None:
    try:
        check_json(body)
    except NotStrict:
        return
    assert not _has_constants(json.loads(body))


def _has_constants(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_constants, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


@pytest.mark.parametrize(
    ("body", "message", "path"),
    [
        (b"", "no JSON at line 1, column 1", ""),
        (b'{"a": 1,}', "no JSON", ""),
        (b"{} {}", "no JSON", ""),
        (b"\xef\xbb\xbf{}", "no JSON", ""),  # a byte order mark
        ('{"a": 1}'.encode("utf-16-le"), "no JSON", ""),  # json.loads alone would guess the encoding
        (b'{"a": "\xff"}', "byte 7 is no UTF-8", ""),
        (b'{"a": "\xed\xa0\x80"}', "no UTF-8", ""),  # a surrogate, encoded
        (b'{"a": NaN}', "NaN and Infinity", ""),
        (b'{"a": [-Infinity]}', "NaN and Infinity", ""),
        (b'{"a": 1, "b": 2, "a": 1}', "a key twice", ""),
        (b'{"a": 1, "\\u0061": 1}', "a key twice", ""),
        (b'{"a": {"b": [1, 1e999]}}', "beyond what 64 bits", "body.a.b.1"),
        (b'{"a": -1E+400}', "beyond what 64 bits", "body.a"),
        (b'{"a": 9223372036854775808}', "integer is beyond", "body.a"),
        (b'{"a": ' + b"1" * 400 + b".0}", "beyond what 64 bits", "body.a"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits", ""),
        (b'{"a": "x\\ud800y"}', "surrogate", "body.a"),
        (b'{"a": {"\\udfff": 1}}', "surrogate", "body.a"),
        (b"[" * 17 + b"]" * 17, "nested deeper than 16", ""),
        (b'{"a":' * 100_000, "nested deeper than 16", ""),
    ],
)
def test_what_is_refused(body: bytes, message: str, path: str) -> None:
    with pytest.raises(NotStrict, match=message) as raised:
        check_json(body)
    assert raised.value.path == path


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 16 + b"]" * 16,
        b'{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1e308, "d": -0.0}',
        b'{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}',  # a whole pair; a backslash and letters
        json.dumps({"a": "[" * 50, "b": '"[{' * 50}).encode(),  # brackets in strings nest nothing
        b'[{"a": 1}, {"a": 2}]',
    ],
)
def test_what_is_taken(body: bytes) -> None:
    check_json(body)
