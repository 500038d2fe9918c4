"""Arrow files that all processes of a machine read through one memory map: opening one costs next to no own memory.

Shape legend: `N` rows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FENCE = 256
"""Of this many ids one is held as a Python string: 0.3 MiB of 1 M ids, and a search takes 8 steps instead of 20."""

RECENT = 65_536
"""Ids whose rows are remembered, some 10 MiB: popular items are looked up again and again."""

SEARCHES_PER_HASH = 100
"""Searching for one id takes about as long as hashing this many."""


class SortedIds:
    """Distinct ids in ascending order; an id's row is found by binary search where the ids lie."""

    def __init__(self, ids: pa.LargeStringArray) -> None:
        """
        Args:
            ids: [N], ascending, without nulls. Large, as ids of many users exceed the 2 GiB of a plain string array.
        """
        self.array = ids
        _, starts, text = ids.buffers()
        self._starts = memoryview(starts or b"").cast("q")[ids.offset : ids.offset + len(ids) + 1]  # bytes
        self._text = memoryview(text or b"")
        self._found = lru_cache(RECENT)(self._search)
        self._fences = [self[row] for row in range(0, len(ids), FENCE)]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Self:
        """The distinct ids of a column."""
        distinct = pc.unique(column.cast(pa.large_string()))
        return cls(distinct.take(pc.sort_indices(distinct)))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: int) -> str:
        if row < 0:  # -1 is no row here, and not the last one
            raise IndexError(row)
        return str(self._text[self._starts[row] : self._starts[row + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def row(self, value: str | None) -> int:
        """The row of an id, -1 for one that is not there."""
        return self._found(value) if isinstance(value, str) else -1

    def _search(self, value: str) -> int:
        start = FENCE * max(0, bisect_right(self._fences, value) - 1)
        row = bisect_left(self, value, start, min(start + FENCE, len(self)))  # code points sort as their UTF-8 does
        return row if row < len(self) and self[row] == value else -1

    def rows(self, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """[N] int64 rows of a column of ids, -1 for null and for one that is not there.

        Few distinct ids are searched where they lie; for many all ids are hashed once (0.3 s of 1 M).
        """
        distinct = pc.unique(column)
        if len(distinct) * SEARCHES_PER_HASH > len(self):
            found = pc.fill_null(pc.index_in(column.cast(pa.large_string()), value_set=self.array), -1)
            return np.asarray(found).astype(np.int64)
        rows = np.array([self.row(value) for value in distinct.to_pylist()], np.int64)
        return rows[np.asarray(pc.index_in(column, value_set=distinct))]


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table in one piece; text becomes large_string, which has no limit of 2 GiB."""
    fields = [field.with_type(pa.large_string()) if pa.types.is_string(field.type) else field for field in table.schema]
    columns = [table[field.name].cast(field.type).combine_chunks() for field in fields]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def write_mapped(batch: pa.RecordBatch, path: Path) -> None:
    """Write a batch for `open_mapped`: uncompressed, so that it can be read where it lies."""
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)


def open_mapped(path: Path) -> pa.RecordBatch:
    """What `write_mapped` wrote, without reading it; the artifact store has verified the file."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
