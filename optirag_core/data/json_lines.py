"""Records of a JSON Lines file, and the checks of their fields that several publishers need."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from optirag_core.data.raw_files import MalformedCounter, RawFile, iterate_lines

T = TypeVar("T")
LATEST = datetime(2100, 1, 1, tzinfo=UTC)  # later times are milliseconds taken for seconds


class BadField(ValueError):
    """A field of a record is missing or has no usable value; becomes the reason of a malformed line."""


@dataclass(frozen=True)
class Records(Generic[T]):
    """The parsed records of one file, in its order, and what was wrong with the others."""

    values: list[T]
    num_malformed: int = 0
    warnings: tuple[str, ...] = ()


def read_records(file: RawFile, max_malformed_share: float, parse: Callable[[Mapping[str, Any]], T]) -> Records[T]:
    """Parse every line of a file; those that are not JSON objects or that `parse` refuses are malformed.

    `parse` refuses a record by raising `BadField`. Blank lines are skipped.

    Raises:
        DataError: the file is empty or cannot be read.
        MalformedLines: more than `max_malformed_share` of the lines are malformed.
    """
    malformed = MalformedCounter(file.name, max_malformed_share)
    values = []
    for number, line in iterate_lines(file):
        if not line.strip():
            continue
        malformed.num_lines += 1
        try:
            values.append(parse(_object(line)))
        except BadField as error:
            malformed.add(number, str(error))
    malformed.check()
    return Records(values, malformed.num_malformed, tuple(malformed.warnings()))


def identifier(record: Mapping[str, Any], name: str) -> str:
    """A non-empty printable string, stripped. Raises: BadField."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadField(f"{name} is {_shown(value)}, expected an id")
    return value.strip()


def stars(record: Mapping[str, Any], name: str) -> float:
    """A rating from 1 to 5. Raises: BadField."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 5:
        raise BadField(f"{name} is {_shown(value)}, expected a number from 1 to 5")
    return float(value)


def unix_time(record: Mapping[str, Any], name: str) -> datetime:
    """Seconds since 1970. Raises: BadField."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LATEST.timestamp():
        raise BadField(f"{name} is {_shown(value)}, expected seconds since 1970")
    return datetime.fromtimestamp(value, UTC)


def date_time(record: Mapping[str, Any], name: str) -> datetime:
    """`YYYY-MM-DD HH:MM:SS` or an ISO date, as UTC unless it says otherwise. Raises: BadField."""
    value = record.get(name)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise BadField(f"{name} is {_shown(value)}, expected YYYY-MM-DD HH:MM:SS")
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def text_of(record: Mapping[str, Any], name: str) -> str:
    """The string of an optional field, empty where it is absent or something else."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        raise BadField("not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadField(f"not JSON: {line[:60].decode('utf-8', 'replace')!r}") from None
    if not isinstance(value, dict):
        raise BadField(f"a JSON {type(value).__name__}, expected an object")
    return value


def _shown(value: Any) -> str:
    return repr(value)[:60]
