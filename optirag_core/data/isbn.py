"""Book ids of BookCrossing: normalised without guessing, and checked for what spreadsheets do to them.

A spreadsheet reads an ISBN as a number: it drops leading zeros and writes long ones as 9,78292E+12. Both lose
information; padding with zeros could join a rating to another book, so nothing is ever padded.
"""

import re

from optirag_core.data.raw_files import NUM_EXAMPLES
from optirag_core.errors import DataError

ISBN_LENGTH = 10
MAX_SHORT_SHARE = 0.01  # genuine file: 2 of 419,089 ids are shorter than 10; a spreadsheet's copy: 74,301 of 99,996
_SCIENTIFIC = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")


def normalise_isbn(raw: str) -> str:
    """Strip spaces, quotes and backslashes; a final x becomes X. Otherwise ids are opaque (`0010622/86` is real)."""
    isbn = raw.strip(" \t\r\n\"'\\")
    return isbn[:-1] + "X" if isbn.endswith("x") else isbn


def is_scientific(isbn: str) -> bool:
    """Whether a spreadsheet has rounded this id, as in `9,78292E+12`."""
    return "+" in isbn and _SCIENTIFIC.fullmatch(isbn) is not None


class SpreadsheetCheck:
    """Watches the ids of one file and refuses it when a spreadsheet has rewritten them."""

    def __init__(self, name: str):
        self._name = name
        self._num_rows = 0
        self._num_quoted = 0
        self._num_damaged = 0
        self._examples: list[str] = []

    def see(self, isbn: str, *, quoted: bool) -> None:
        self._num_rows += 1
        self._num_quoted += quoted
        if len(isbn) < ISBN_LENGTH or is_scientific(isbn):
            self._num_damaged += 1
            if len(self._examples) < NUM_EXAMPLES:
                self._examples.append(isbn)

    def check(self) -> None:
        """Call at the end of the file. Quoted ids are text, whatever their length: only unquoted files are refused.

        Raises:
            DataError: most rows are unquoted and more than `MAX_SHORT_SHARE` of the ids are damaged.
        """
        if self._num_quoted * 2 > self._num_rows or self._num_damaged <= MAX_SHORT_SHARE * self._num_rows:
            return
        share = self._num_damaged / self._num_rows
        raise DataError(
            f"{self._name}: the ids look damaged by a spreadsheet: no quotes, and {self._num_damaged:,} of "
            f"{self._num_rows:,} ids ({share:.1%}) are rounded or shorter than {ISBN_LENGTH} characters, "
            f"e.g. {', '.join(self._examples)}; use the publisher's original file"
        )
