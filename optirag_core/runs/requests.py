"""The input of a scoring run: Parquet files of requests or pairs -> a stream of tables of whole users.

Everything is checked before anything is produced: `open_requests` reads every file to its end. Memory stays flat: a
batch, a user, and 8 bytes per user.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from optirag_core.config.run import StorageSettings
from optirag_core.errors import DataError
from optirag_core.manifest import file_sha256
from optirag_core.runs.grouping import ReturningUsers, in_buckets, merged, whole_users
from optirag_core.runs.parquet import Form, RequestTable
from optirag_core.storage.base import Storage, is_local, open_storage

BATCH_ROWS = 65_536
"""A table has about this many pairs: a few MiB, read in two thirds of a second at best."""

SUFFIX = ".parquet"


@dataclass(frozen=True)
class RequestFiles:
    """Verified Parquet files of requests or pairs on this machine; `open_requests` makes it."""

    sha256: Mapping[str, str]  # file name (relative to the given location) -> hex digest of its bytes
    form: Form
    tables: tuple[RequestTable, ...]  # in the order of `sha256`
    num_rows: int
    num_bytes: int  # of all rows in memory
    clustered: bool  # each user's rows are adjacent, over all files


def open_requests(location: str, storage: StorageSettings, scratch: Path) -> RequestFiles:
    """Find and verify the files: each is read to its end once.

    Args:
        location: a Parquet file, or a folder of *.parquet in which names that start with `.` or `_` are ignored, as a
            local path or s3:// URI.
        scratch: a local folder for files that come from elsewhere.

    Raises:
        DataError: there is no such file; one is damaged, has other columns than the first, or columns of other types.
        StorageError: the place cannot be reached.
    """
    files = _local_files(location) if is_local(location) else _downloaded(location, storage, scratch)
    digests, tables = {}, []
    returning = ReturningUsers()
    num_rows = num_bytes = 0
    for name, (path, shown) in files.items():
        tables.append(RequestTable(path, shown))
        _check_alike(tables[0], tables[-1])
        digests[name] = _sha256(path, shown)
        for batch in tables[-1].batches(BATCH_ROWS):
            returning.add(batch["user_id"])
            num_rows += batch.num_rows
            num_bytes += batch.nbytes
        tables[-1].check_unchanged()
    return RequestFiles(digests, tables[0].form, tuple(tables), num_rows, num_bytes, clustered=not returning.found)


def grouped(files: RequestFiles, scratch: Path, *, batch_rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """Stream the requests as tables of `REQUESTS`; all rows of one user are in one table.

    Clustered files pass through in their order. The rows of others are first written into bucket files by a hash of the
    user id; then each bucket is read, ordered by the users' first appearance, and streamed. So users do not keep their
    order, but the same files always give the same stream, and each user's own rows keep theirs.

    Pairs of one user with the same as_of and as_of_position become one request, its items in order of appearance.

    Args:
        scratch: a local folder with room for all rows; used only where files are not clustered.
        batch_rows: the number of pairs that are read at a time, about. A table has more where one user has more.

    Raises:
        DataError: a file changed since `open_requests`.
        StorageFull: `scratch` has no space left.
    """
    rows = _batches(files, batch_rows)
    if not files.clustered:
        rows = in_buckets(rows, files.num_bytes, scratch, batch_rows=batch_rows)
    for table in whole_users(rows):
        yield merged(table) if files.form == "pairs" else table


def _batches(files: RequestFiles, batch_rows: int) -> Iterator[pa.Table]:
    for table in files.tables:
        yield from table.batches(batch_rows)
        table.check_unchanged()


def _local_files(location: str) -> dict[str, tuple[Path, str]]:
    root = Path(location.removeprefix("file://"))
    if root.is_file():
        return {root.name: (root, str(root))}
    if not root.is_dir():
        raise DataError(f"there is no {root}: expected a Parquet file or a folder of *{SUFFIX}")
    paths = [Path(folder) / name for folder, _, names in os.walk(root, onerror=_stop) for name in names]
    names = _chosen([path.relative_to(root).as_posix() for path in paths], location)
    return {name: (root / name, str(root / name)) for name in names}


def _stop(error: OSError) -> None:
    raise DataError(f"folder {error.filename} cannot be read: {error.strerror}") from None


def _downloaded(location: str, settings: StorageSettings, scratch: Path) -> dict[str, tuple[Path, str]]:
    location = location.rstrip("/")
    parent, _, last = location.rpartition("/")
    place, names = open_storage(location, settings), None
    if last.endswith(SUFFIX) and not parent.endswith("/"):  # Spark's folders of files carry the suffix, too
        beside = open_storage(parent, settings)
        if beside.exists(last):
            place, names, location = beside, [last], parent
    names = names or _chosen(place.list(""), location)
    return {name: (_download(place, name, scratch / "requests"), f"{location}/{name}") for name in names}


def _download(place: Storage, name: str, folder: Path) -> Path:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):  # a key of a bucket may hold anything
        raise DataError(f"{place.uri}/{name} is no usable file name")
    file.parent.mkdir(parents=True, exist_ok=True)
    place.download(name, file)
    return file


def _chosen(names: list[str], location: str) -> list[str]:
    chosen = sorted(name for name in names if name.endswith(SUFFIX) and not _hidden(name))
    if not chosen:
        raise DataError(f"folder {location} holds no *{SUFFIX} file")
    return chosen


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _sha256(path: Path, shown: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror or error}") from None


def _check_alike(first: RequestTable, table: RequestTable) -> None:
    """Raise where a file lacks or adds a column: without as_of its users would be shown what came later."""
    if (table.form, table.optional) != (first.form, first.optional):
        raise DataError(
            f"{table.name} has columns {', '.join(table.used)}, but {first.name} has {', '.join(first.used)}: "
            "all files of a run need the same"
        )
