"""Rows in any order -> tables in which all rows of a user are together, with flat memory.

Shape legend: `N` rows of a table, `R` stretches of adjacent rows with one user, `G` groups.
"""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import REQUESTS
from optirag_core.errors import StorageFull

BUCKET_BYTES = 2**26
"""The rows of one bucket take about this much memory, and sorting them three times as much."""

MAX_BUCKETS = 256
"""All bucket files are open at once, and many systems allow a process 1,024. Above 16 GiB of rows the buckets grow."""

CHECK_AT = 2**20
"""This many hashes are searched for repeats, and again whenever their number has doubled."""


class ReturningUsers:
    """Whether a user comes back after another one's rows; takes 8 bytes per user.

    Compares 64-bit hashes: among 10 million users two share one with a probability of 3 in a million, and then the rows
    are grouped needlessly.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._fresh: list[np.ndarray] = []
        self._num_fresh = 0
        self._last: Sequence[str | None] = ()  # the user of the last row
        self._found = False

    def add(self, user_ids: pa.ChunkedArray) -> None:
        """Take the next rows' users, in order."""
        if self._found or not len(user_ids):
            return
        users = pc.run_end_encode(user_ids.combine_chunks()).values.to_pylist()  # [N] -> [R]
        new = users[1:] if [users[0]] == self._last else users
        self._last = users[-1:]
        self._fresh.append(np.array([_hash(user) for user in new], np.uint64))
        self._num_fresh += len(new)
        if self._num_fresh >= max(CHECK_AT, len(self._hashes)):
            self._look()

    @property
    def found(self) -> bool:
        """Whether any user has come back so far."""
        if not self._found:
            self._look()
        return self._found

    def _look(self) -> None:
        hashes = np.sort(np.concatenate([self._hashes, *self._fresh]))
        self._found = bool((hashes[1:] == hashes[:-1]).any())
        self._hashes, self._fresh, self._num_fresh = hashes, [], 0


def whole_users(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Cut a stream in which each user's rows are adjacent so that no user is in two tables."""
    pending: list[pa.Table] = []  # the rows of the last user so far
    for table in tables:
        starts = _stretch_starts(table["user_id"])  # [R]
        if pending and len(table):
            goes_on = pending[0]["user_id"][0].as_py() == table["user_id"][0].as_py()
            if goes_on and len(starts) == 1:
                pending.append(table)
                continue
            if not goes_on:
                starts = np.r_[0, starts]  # the pending rows are all
        if len(starts) > 1:
            done = pa.concat_tables([*pending, table.slice(0, starts[-1])])
            yield done
            pending = []
        if len(starts):
            pending.append(table.slice(starts[-1]))
    if pending:
        yield pa.concat_tables(pending)


def merged(pairs: pa.Table) -> pa.Table:
    """`PAIRS` of whole users -> `REQUESTS`: one row per user, as_of and as_of_position, in order of appearance."""
    begins = np.zeros(len(pairs), np.int64)
    begins[_stretch_starts(pairs["user_id"])] = 1
    keys = [np.cumsum(begins)]
    for column in (pairs["as_of"].cast(pa.int64()), pairs["as_of_position"]):
        keys += [column.is_null().to_numpy(), column.fill_null(0).to_numpy()]
    by_key = np.lexsort(keys[::-1])  # [N], stable
    is_first = np.r_[True, np.any([key[by_key][1:] != key[by_key][:-1] for key in keys], axis=0)]
    group = np.empty(len(pairs), np.int64)
    group[by_key] = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]  # position of the group's first row in `by_key`
    first_row = by_key[group]  # [N]: by_key is stable, so this is the group's first row
    order = np.argsort(first_row, kind="stable")
    starts = np.flatnonzero(np.diff(first_row[order], prepend=-1))  # [G]
    offsets = pa.array(np.r_[starts, len(pairs)].astype(np.int32))
    items = pa.ListArray.from_arrays(offsets, pairs["item_id"].combine_chunks().take(pa.array(order)))
    rows = pairs.take(pa.array(first_row[order][starts]))
    return pa.table([rows["user_id"], items, rows["as_of"], rows["as_of_position"]], schema=REQUESTS)


def in_buckets(tables: Iterator[pa.Table], num_bytes: int, scratch: Path, *, batch_rows: int) -> Iterator[pa.Table]:
    """Reorder rows so that each user's are adjacent, by way of bucket files.

    Args:
        tables: rows with user_id.
        num_bytes: that all rows would take in memory; sets the number of buckets.
        scratch: an existing local folder.
        batch_rows: rows of the tables that come out.

    Raises:
        StorageFull: `scratch` has no space left.
    """
    number = min(MAX_BUCKETS, num_bytes // BUCKET_BYTES + 1)
    folder = Path(tempfile.mkdtemp(prefix="buckets-", dir=scratch))
    try:
        buckets = _write_buckets(tables, folder, number)
        for bucket in buckets:
            table = pa.ipc.open_stream(bucket).read_all()
            bucket.unlink()
            codes = _codes(table["user_id"])[0]
            order = pa.array(np.argsort(codes, kind="stable"))
            for start in range(0, len(table), batch_rows):
                yield table.take(order.slice(start, batch_rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_buckets(tables: Iterator[pa.Table], folder: Path, number: int) -> list[Path]:
    paths = [folder / f"{bucket:03}.arrow" for bucket in range(number)]
    with _space(folder), ExitStack() as stack:
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        for table in tables:
            codes, users = _codes(table["user_id"])
            bucket = np.array([_hash(user) % number for user in users], np.int64)[codes]  # [N]
            order = np.argsort(bucket, kind="stable")
            rows = table.take(pa.array(order))
            starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
            for start, stop in zip(starts, np.r_[starts[1:], len(rows)], strict=True):
                key = int(bucket[order[start]])
                if key not in writers:
                    writers[key] = stack.enter_context(pa.ipc.new_stream(paths[key], table.schema))
                writers[key].write_table(rows.slice(start, stop - start))
        return [paths[key] for key in sorted(writers)]


@contextmanager
def _space(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left in {folder.parent} to group the requests by user: free some") from None
        raise


def _codes(user_ids: pa.ChunkedArray) -> tuple[np.ndarray, list[str | None]]:
    """Number the users by first appearance: [N] and the users; null is one of them."""
    encoded = user_ids.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _stretch_starts(user_ids: pa.ChunkedArray) -> np.ndarray:
    """First row of each stretch of one user: [R]."""
    if not len(user_ids):
        return np.empty(0, np.int64)
    ends = pc.run_end_encode(user_ids.combine_chunks()).run_ends.to_numpy()
    return np.r_[0, ends[:-1]]


def _hash(user_id: str | None) -> int:
    """A number of 64 bits that is the same on every machine; null is unlike every id."""
    key = b"" if user_id is None else b"u" + user_id.encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
