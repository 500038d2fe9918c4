"""Rows of a `;`-separated file whose quotes are escaped by backslashes and whose fields may hold line breaks."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from optirag_core.data.raw_files import MalformedCounter, RawFile, iterate_lines
from optirag_core.errors import DataError

MAX_JOINED_LINES = 5  # a line break inside a field is rare and single; a quote left open must not swallow the file
BYTE_ORDER_MARK = "ï»¿"  # the UTF-8 mark, read as Latin-1
_OPEN = "a quote is not closed"


class _Dialect(csv.Dialect):
    delimiter = ";"
    quotechar = '"'
    escapechar = "\\"
    doublequote = True
    lineterminator = "\n"
    quoting = csv.QUOTE_MINIMAL
    strict = True


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row, the line it starts on, and whether any of its fields was quoted."""

    line_number: int
    fields: list[str]
    quoted: bool


def read_rows(
    file: RawFile, columns: Sequence[str], header: Literal["auto", "none"], malformed: MalformedCounter
) -> Iterator[Row]:
    """Yield the rows of a Latin-1 file with their fields in the order of `columns`, without the header line.

    With `header` "none" a file may lack the header line; its first columns are then `columns`.

    Raises:
        DataError: the header line is missing and `header` is auto; the first line has too few fields.
    """
    order: Sequence[int] | None = None
    for row in _parse_rows(file, malformed):
        if order is None:
            order = _named_order(row, columns)
            if order is not None:
                malformed.num_lines -= 1
                continue
            _check_headless(row, columns, header, file)
            order = range(len(columns))
        yield Row(row.line_number, [row.fields[index] for index in order], row.quoted)


def _named_order(row: Row, columns: Sequence[str]) -> list[int] | None:
    """Where the header line names each column; None when this row is not the header line."""
    names = [name.removeprefix(BYTE_ORDER_MARK).strip('" ').casefold() for name in row.fields]
    wanted = [column.casefold() for column in columns]
    return [names.index(name) for name in wanted] if set(wanted) <= set(names) else None


def _check_headless(row: Row, columns: Sequence[str], header: Literal["auto", "none"], file: RawFile) -> None:
    expected, found = ";".join(columns), ";".join(row.fields)[:120]
    if len(row.fields) < len(columns):
        raise DataError(f"{file.name}: line {row.line_number} is {found!r}, expected {len(columns)} fields, {expected}")
    if header == "auto":
        raise DataError(
            f"{file.name}: the header line is missing: line {row.line_number} is {found!r}, expected {expected}; "
            "pass --header none to read the columns by position"
        )


def _parse_rows(file: RawFile, malformed: MalformedCounter) -> Iterator[Row]:
    """Yield the rows of a Latin-1 file; blank lines are skipped, a line that cannot be parsed is counted.

    A quote that is open at the end of a line takes up to `MAX_JOINED_LINES` more lines; when none of them closes it
    properly, the first line alone is malformed and reading goes on at the second. The first row fixes the number of
    fields of all others.
    """
    lines = _Lookahead((number, line.decode("latin-1")) for number, line in iterate_lines(file))
    num_fields = None
    while (first := lines.take()) is not None:
        number, text = first
        if not text.strip():
            continue
        malformed.num_lines += 1
        fields, reason = _parse(lines, text, num_fields)
        if fields is None:
            malformed.add(number, reason)
            continue
        num_fields = num_fields or len(fields)
        yield Row(number, fields, '"' in text)


class _Lookahead:
    """An iterator of numbered lines that can show lines before they are taken."""

    def __init__(self, source: Iterator[tuple[int, str]]):
        self._source = source
        self._waiting: list[tuple[int, str]] = []

    def take(self) -> tuple[int, str] | None:
        return self._waiting.pop(0) if self._waiting else next(self._source, None)

    def peek(self, count: int) -> list[str]:
        while len(self._waiting) < count and (line := next(self._source, None)) is not None:
            self._waiting.append(line)
        return [text for _, text in self._waiting[:count]]

    def skip(self, count: int) -> None:
        del self._waiting[:count]


def _parse(lines: _Lookahead, text: str, num_fields: int | None) -> tuple[list[str] | None, str]:
    """Parse `text`, joined with as few of the following lines as it needs; returns the fields, or None and why."""
    fields, reason = _split(text, num_fields)
    if fields is not None or reason != _OPEN:
        return fields, reason
    for count in range(1, MAX_JOINED_LINES + 1):
        following = lines.peek(count)
        if len(following) < count:
            break
        fields, joined_reason = _split("\n".join([text, *following]), num_fields)
        if fields is not None:
            lines.skip(count)
            return fields, ""
        if joined_reason != _OPEN:
            break
    return None, reason


def _split(text: str, num_fields: int | None) -> tuple[list[str] | None, str]:
    try:
        fields = next(csv.reader((text,), _Dialect))
    except csv.Error as error:
        reason = str(error)
        return None, _OPEN if "unexpected end of data" in reason else reason
    if num_fields is not None and len(fields) != num_fields:
        return None, f"{len(fields)} fields, expected {num_fields}"
    return fields, ""


def restore_quotes(text: str) -> str:
    r"""Undo the second escaping of some titles: `My \Star Trek\" Memories"` -> `My "Star Trek" Memories`.

    Their first quote became a bare backslash, and a surplus quote was added at the end.
    """
    if "\\" not in text:
        return text
    restored = re.sub(r'\\"?', '"', text).strip()
    return restored[:-1] if restored.endswith('"') and restored.count('"') % 2 else restored
