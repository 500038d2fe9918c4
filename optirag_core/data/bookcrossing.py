"""BookCrossing (Ziegler et al., 2004): `BX-Users`, `BX-Books` and `BX-Book-Ratings`, Latin-1, `;`, quoted.

Ratings are 0 to 10, where 0 stands for implicit feedback; there are no times. Only the country of a location is kept,
since a prompt shows nothing else of it.
"""

import re
from datetime import date
from pathlib import Path
from string import capwords
from typing import Any

import pyarrow as pa

from optirag_core.config.data import DatasetSettings
from optirag_core.data.isbn import SpreadsheetCheck, is_scientific, normalise_isbn
from optirag_core.data.quoted_csv import Row, read_rows, restore_quotes
from optirag_core.data.raw_dataset import RawDataset, table_of
from optirag_core.data.raw_files import MalformedCounter, RawFile, find_file, require_file
from optirag_core.data.schema import RATINGS
from optirag_core.data.text import clean_text
from optirag_core.errors import DataError

USERS_COLUMNS = ("User-ID", "Location", "Age")
BOOKS_COLUMNS = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")  # image URLs may follow
RATINGS_COLUMNS = ("User-ID", "ISBN", "Book-Rating")

USERS_SCHEMA = pa.schema([("user_id", pa.string()), ("location", pa.string()), ("age", pa.int16())])
BOOKS_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("author", pa.string()),
        ("year", pa.int16()),
        ("publisher", pa.string()),
    ]
)

MIN_AGE, MAX_AGE = 5, 100  # the file has ages of 0 and 244
MIN_YEAR = 1450  # the printing press; the file has many years 0
RATING_VALUES = {str(value): float(value) for value in range(11)}
UNKNOWN = {"", "null", "n/a"}


def load_bookcrossing(folder: Path, settings: DatasetSettings) -> RawDataset:
    """Read the three files; the users' file may be absent.

    Ratings of books that the books' file lacks are dropped, since a prompt needs their titles; ratings of unknown users
    stay and get a profile of nulls. Both are counted.

    Raises:
        DataError: a file is missing, lacks its header, is damaged, or the ratings share no book with the books' file.
        MalformedLines: too many lines of a file are malformed.
    """
    return _Loader(settings).load(folder)


class _Loader:
    """One load: the three files fill the same warnings and counts."""

    def __init__(self, settings: DatasetSettings):
        self._settings = settings
        self._warnings: list[str] = []
        self._counts: dict[str, int] = {}

    def load(self, folder: Path) -> RawDataset:
        ratings_file = require_file(folder, "BX-Book-Ratings", [".csv"])
        books_file = require_file(folder, "BX-Books", [".csv"])
        users_file = find_file(folder, "BX-Users", [".csv"])
        ratings = self._read_ratings(ratings_file)
        books = self._read_books(books_file)
        if users_file is None:
            self._warnings.append(f"no BX-Users.csv in {folder}: every user's location and age are unknown")
        users = {} if users_file is None else self._read_users(users_file)
        ratings = self._drop_unknown_books(ratings, books)
        self._add_unknown_users(ratings, users)
        self._counts.update(num_ratings=len(ratings), num_users=len(users), num_items=len(books))
        return RawDataset(
            ratings=table_of([(*rating, None) for rating in ratings], RATINGS),
            users=table_of([(user, *profile) for user, profile in users.items()], USERS_SCHEMA),
            items=table_of([(isbn, *book) for isbn, book in books.items()], BOOKS_SCHEMA),
            warnings=tuple(self._warnings),
            counts=self._counts,
        )

    def _read_ratings(self, file: RawFile) -> list[tuple[str, str, float]]:
        ratings = []
        malformed, spreadsheet = self._counter(file), SpreadsheetCheck(file.name)
        for row in read_rows(file, RATINGS_COLUMNS, self._settings.header, malformed):
            raw_user, raw_isbn, raw_rating = row.fields
            user, rating = raw_user.strip(), RATING_VALUES.get(raw_rating.strip())
            isbn = _valid_isbn(raw_isbn, row, malformed, spreadsheet)
            if isbn is None:
                continue
            if not user or rating is None:
                reason = f"rating {raw_rating!r} is not a whole number from 0 to 10" if user else "the user id is empty"
                malformed.add(row.line_number, reason)
                continue
            ratings.append((user, isbn, rating))
        spreadsheet.check()
        self._finish(malformed, "malformed_ratings")
        return ratings

    def _read_books(self, file: RawFile) -> dict[str, tuple[Any, ...]]:
        """ISBN -> (title, author, year, publisher); the first line of a repeated ISBN counts."""
        books: dict[str, tuple[Any, ...]] = {}
        malformed, spreadsheet = self._counter(file), SpreadsheetCheck(file.name)
        max_year = date.today().year + 1
        for row in read_rows(file, BOOKS_COLUMNS, self._settings.header, malformed):
            raw_isbn, title, author, year, publisher = row.fields
            isbn = _valid_isbn(raw_isbn, row, malformed, spreadsheet)
            if isbn is not None:
                published = _whole_number(year, MIN_YEAR, max_year)
                books.setdefault(isbn, (_text(title) or isbn, _text(author), published, _text(publisher)))
        spreadsheet.check()
        self._finish(malformed, "malformed_books")
        return books

    def _read_users(self, file: RawFile) -> dict[str, tuple[Any, ...]]:
        """User -> (location, age); the first line of a repeated user counts."""
        users: dict[str, tuple[Any, ...]] = {}
        countries: dict[str, str | None] = {}
        malformed = self._counter(file)
        for row in read_rows(file, USERS_COLUMNS, self._settings.header, malformed):
            raw_user, raw_location, raw_age = row.fields
            user, last_part = raw_user.strip(), raw_location.rpartition(",")[2]
            if not user:
                malformed.add(row.line_number, "the user id is empty")
                continue
            if last_part not in countries:
                countries[last_part] = _country(last_part)
            users.setdefault(user, (countries[last_part], _whole_number(raw_age, MIN_AGE, MAX_AGE)))
        self._finish(malformed, "malformed_users")
        return users

    def _drop_unknown_books(
        self, ratings: list[tuple[str, str, float]], books: dict[str, tuple[Any, ...]]
    ) -> list[tuple[str, str, float]]:
        known = [rating for rating in ratings if rating[1] in books]
        num_dropped = len(ratings) - len(known)
        self._counts["ratings_without_item"] = num_dropped
        if not known:
            raise DataError(f"none of the {num_dropped:,} ratings is of a book in BX-Books: the files do not match")
        if num_dropped:
            self._warnings.append(f"dropped {num_dropped:,} ratings of books that BX-Books lacks: no title to show")
        return known

    def _add_unknown_users(self, ratings: list[tuple[str, str, float]], users: dict[str, tuple[Any, ...]]) -> None:
        unknown = dict.fromkeys(user for user, _, _ in ratings if user not in users)
        if unknown and users:
            self._warnings.append(f"{len(unknown):,} users of ratings are not in BX-Users: their profiles are unknown")
        users.update(dict.fromkeys(unknown, (None, None)))
        self._counts["users_without_profile"] = len(unknown)

    def _counter(self, file: RawFile) -> MalformedCounter:
        return MalformedCounter(file.name, self._settings.max_malformed_share)

    def _finish(self, malformed: MalformedCounter, count: str) -> None:
        malformed.check()
        self._warnings.extend(malformed.warnings())
        self._counts[count] = malformed.num_malformed


def _valid_isbn(raw: str, row: Row, malformed: MalformedCounter, spreadsheet: SpreadsheetCheck) -> str | None:
    isbn = normalise_isbn(raw)
    spreadsheet.see(isbn, quoted=row.quoted)
    if isbn and not is_scientific(isbn):
        return isbn
    malformed.add(row.line_number, f"ISBN {raw!r} was rounded by a spreadsheet" if isbn else "the ISBN is empty")
    return None


def _text(raw: str) -> str | None:
    text = clean_text(restore_quotes(raw))
    return None if text.casefold() in UNKNOWN else text


def _country(last_part: str) -> str | None:
    """`usa` -> USA, `united kingdom` -> United Kingdom, `"n/a"` -> None."""
    name = clean_text(last_part).strip(" \"'().;").casefold()
    if name in UNKNOWN:
        return None
    return name.upper() if len(name) <= 3 else capwords(name)


def _whole_number(raw: str, lowest: int, highest: int) -> int | None:
    text = raw.strip()
    number = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None
    return number if number is not None and lowest <= number <= highest else None
