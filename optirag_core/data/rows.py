"""Profiles and titles by id: a table as a mapping from id to row, read where it lies."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.mapped import SortedIds, one_batch, open_mapped, write_mapped

Noun = Literal["user", "item"]


class Rows(Mapping[str, Mapping[str, Any]]):
    """Rows of a table by the values of its id column; a row is a dict made when it is asked for."""

    def __init__(self, batch: pa.RecordBatch, noun: Noun) -> None:
        """
        Args:
            batch: ascending by the id column `<noun>_id`; `of` sorts a table.
        """
        self._batch = batch
        self._ids = SortedIds(batch[f"{noun}_id"])
        self._noun = noun

    @classmethod
    def of(cls, table: pa.Table, noun: Noun) -> Self:
        """Rows of a table in any order, with distinct ids."""
        batch = one_batch(table)
        return cls(batch.take(pc.sort_indices(batch[f"{noun}_id"])), noun)

    @classmethod
    def open(cls, folder: Path, noun: Noun) -> Self:
        """Map what `save` wrote; all processes of a machine share its memory."""
        return cls(open_mapped(folder / f"{noun}s.arrow"), noun)

    def save(self, folder: Path) -> None:
        """Write `<noun>s.arrow` into an existing local folder."""
        write_mapped(self._batch, folder / f"{self._noun}s.arrow")

    def __getitem__(self, value: str) -> Mapping[str, Any]:
        if (row := self._ids.row(value)) < 0:
            raise KeyError(value)
        names = self._batch.schema.names
        return {name: column[row].as_py() for name, column in zip(names, self._batch.columns, strict=True)}

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self._ids.row(value) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def blank(self, value: str) -> Mapping[str, Any]:
        """The row of an id that the table does not have: every other column null."""
        return {**dict.fromkeys(self._batch.schema.names), f"{self._noun}_id": value}
