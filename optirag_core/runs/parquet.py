"""One Parquet file of requests or pairs, read batch by batch; whatever is wrong with it stops with the file's name.

Values are under the pages' checksums; what is under none is compared in `footer`.
"""

import binascii
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from optirag_core.data.ids import ID_COLUMNS
from optirag_core.data.schema import PAIRS, REQUESTS, TIMESTAMP
from optirag_core.errors import DataError
from optirag_core.runs.footer import check_footer, check_group, num_values

Form = Literal["requests", "pairs"]
SCHEMAS: Mapping[Form, pa.Schema] = {"requests": REQUESTS, "pairs": PAIRS}
OPTIONAL = ("as_of", "as_of_position")

PAIRS_PER_REQUEST = 64
"""Assumed when the size of a batch is chosen. Asking the footer is no option: pyarrow 26.0.1 ends the whole process on
`RowGroupMetaData.column` where a flipped bit made the footer contradict itself."""

READ_BUFFER_BYTES = 2**20
"""A column chunk is read in pieces of this size instead of whole: row groups may be larger than the memory."""

EARLIEST_TIME, LATEST_TIME = (pa.scalar(datetime(year, 1, 1, tzinfo=UTC), TIMESTAMP) for year in (1, 9999))
"""Python's own range of times: one outside of it can be neither shown nor written to the rejects."""


class RequestTable:
    """A Parquet file whose footer has been read and whose columns fit; `name` stands in every message."""

    def __init__(self, path: Path, name: str) -> None:
        """
        Raises:
            DataError: no readable Parquet file, or not the columns of requests or pairs.
        """
        self.path, self.name = path, name
        self._state = _state(path)
        with self._open() as file:
            schema = file.schema_arrow
            self.form = self._form_of(schema.names)
            self.optional = tuple(column for column in OPTIONAL if column in schema.names)
            for field in SCHEMAS[self.form]:
                if field.name in schema.names:
                    self._check_type(field.name, schema.field(field.name).type)
            check_footer(file, self.name)

    def batches(self, batch_rows: int) -> Iterator[pa.Table]:
        """The rows in order, as tables of `SCHEMAS[self.form]` with about `batch_rows` pairs each.

        Raises:
            DataError: a page is damaged, a value is invalid, or there are fewer rows than the footer says.
        """
        rows = max(1, batch_rows // PAIRS_PER_REQUEST) if self.form == "requests" else batch_rows
        with self._open() as file:
            for group in range(file.num_row_groups):
                found = Counter(dict.fromkeys(self.used, 0))
                for batch in file.iter_batches(rows, row_groups=[group], columns=self.used, use_threads=False):
                    table = self._normalised(batch)
                    found.update(num_values(table))
                    yield table
                check_group(file, group, found, self.name)

    @property
    def used(self) -> list[str]:
        """The columns that are read."""
        return [name for name in SCHEMAS[self.form].names if name not in OPTIONAL or name in self.optional]

    def check_unchanged(self) -> None:
        """Raise `DataError` where the file was written to since this object was made."""
        if _state(self.path) != self._state:
            raise DataError(f"{self.name} changed while it was read: nothing may write to it during a run")

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(
                self.path, page_checksum_verification=True, buffer_size=READ_BUFFER_BYTES, pre_buffer=False
            ) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeError, OverflowError, binascii.Error) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.name} is not a readable Parquet file: {reason}; write it again") from None

    def _form_of(self, names: list[str]) -> Form:
        known = {*REQUESTS.names, *PAIRS.names}
        repeated = next((name for name in names if name in known and names.count(name) > 1), None)
        if repeated:
            raise DataError(f"{self.name}: column {repeated!r} is there {names.count(repeated)} times, expected once")
        meant = next((name for name in names if name not in OPTIONAL and _plain(name).startswith("asof")), None)
        if meant:  # ignored as a further column it would show what came later
            raise DataError(f"{self.name}: column {meant!r} is unknown: did you mean as_of or as_of_position?")
        if "user_id" not in names:
            raise DataError(f"{self.name}: column 'user_id' is missing; it has {', '.join(names) or 'none'}")
        if ("item_ids" in names) == ("item_id" in names):
            raise DataError(
                f"{self.name}: expected either column 'item_ids' (requests) or column 'item_id' (pairs); "
                f"it has {', '.join(names)}"
            )
        return "requests" if "item_ids" in names else "pairs"

    def _check_type(self, column: str, came: pa.DataType) -> None:
        fits, expected = EXPECTED[column]
        if not fits(came):
            raise DataError(f"{self.name}: column {column!r} is {came}, expected {expected}")

    def _normalised(self, batch: pa.RecordBatch) -> pa.Table:
        columns = []
        for field in SCHEMAS[self.form]:
            if field.name not in batch.schema.names:
                columns.append(pa.nulls(batch.num_rows, field.type))
                continue
            try:
                columns.append(_cast(batch[field.name], field.type))
                columns[-1].validate(full=True)  # the reader does not look whether text is UTF-8
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                reason = " ".join(str(error).split())[:200]
                raise DataError(f"{self.name}: column {field.name!r} cannot be used: {reason}") from None
        table = pa.table(columns, schema=SCHEMAS[self.form])
        times = pc.min_max(table["as_of"])
        if times["min"].is_valid and (
            pc.less(times["min"], EARLIEST_TIME).as_py() or pc.greater(times["max"], LATEST_TIME).as_py()
        ):
            raise DataError(
                f"{self.name}: column 'as_of' has a time outside of the years 1 to 9998; is its unit right?"
            )
        return table


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_time(came: pa.DataType) -> bool:
    """A number or a text could mean several things, and a wrong guess would show what came later."""
    return types.is_timestamp(came) or types.is_date(came) or types.is_null(came)


def _is_position(came: pa.DataType) -> bool:
    return types.is_integer(came) or types.is_floating(came) or types.is_null(came)  # pandas: whole numbers and null


EXPECTED: Mapping[str, tuple[Callable[[pa.DataType], bool], str]] = {
    **ID_COLUMNS,
    "as_of": (_is_time, "a timestamp or a date"),
    "as_of_position": (_is_position, "whole numbers"),
}


def _cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_timestamp(column.type) and column.type.unit == "ns":  # as of interactions: finer than us is noise
        return column.cast(options=pc.CastOptions.unsafe(target))
    return column.cast(target)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
