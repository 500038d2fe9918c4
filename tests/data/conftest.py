"""How a test writes small copies of the publishers' files."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.data.schema import RATINGS


@pytest.fixture
def books_folder(tmp_path: Path) -> Path:
    """A minimal, sound BookCrossing folder: 3 users, 3 books, 4 ratings."""
    write_latin1(
        tmp_path / "BX-Users.csv",
        '"User-ID";"Location";"Age"\n"1";"nyc, new york, usa";NULL\n"2";"porto, portugal";"17"\n'
        '"3";"berlin, \\"n/a\\", germany";"244"\n',
    )
    write_latin1(
        tmp_path / "BX-Books.csv",
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"\n'
        '"0000000019";"First";"Ann Author";"1999";"House &amp; Sons"\n'
        '"000000006X";"Second";NULL;"0";"House"\n'
        '"0000000027";"Third";"Bo";"2001";""\n',
    )
    write_latin1(
        tmp_path / "BX-Book-Ratings.csv",
        '"User-ID";"ISBN";"Book-Rating"\n"1";"0000000019";"0"\n"1";"000000006x";"8"\n"2";"0000000019";"5"\n'
        '"3";"0000000027";"10"\n',
    )
    return tmp_path


def write_latin1(path: Path, text: str) -> Path:
    data = text.encode("latin-1")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def book_settings(**changes: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"source": "bookcrossing", "path": "here", **changes})


def ratings_table(rows: list[tuple]) -> pa.Table:
    """Rows of (user, item, rating) or (user, item, rating, event_time)."""
    columns = list(zip(*[(*row, None)[:4] for row in rows], strict=True)) or [()] * 4
    return pa.table(dict(zip(RATINGS.names, columns, strict=True)), schema=RATINGS)
