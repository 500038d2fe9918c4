"""A table as a mapping from id to row, without turning it into Python objects first."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa


class Rows(Mapping[str, Mapping[str, Any]]):
    """Rows of a table by the values of its id column; a row is a dict made when it is asked for."""

    def __init__(self, table: pa.Table, key: str) -> None:
        self._table = table.combine_chunks()
        self._row = {value: row for row, value in enumerate(table[key].to_pylist())}
        self._blank = dict.fromkeys(table.column_names)
        self._key = key

    def __getitem__(self, value: str) -> Mapping[str, Any]:
        row = self._row[value]
        return {name: column[row].as_py() for name, column in zip(self._table.column_names, self._columns, strict=True)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def blank(self, value: str) -> Mapping[str, Any]:
        """The row of an id that the table does not have: every other column null."""
        return {**self._blank, self._key: value}

    @property
    def _columns(self) -> list[pa.ChunkedArray]:
        return self._table.columns
