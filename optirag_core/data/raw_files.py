"""Publishers' files on disk: found by stem, opened plain, gzipped or zipped, read line by line, damage counted."""

import gzip
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from optirag_core.errors import DataError, MalformedLines

COMPRESSIONS = ("", ".gz", ".zip")
NUM_EXAMPLES = 5  # enough to see a pattern, few enough for one line of error text


@dataclass(frozen=True)
class RawFile:
    """A file on disk, or a member of a zip on disk."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.member}" if self.member else self.path.name


def require_folder(folder: Path) -> None:
    """Raise `DataError` where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}: give --data DIR with the publisher's raw files")


def find_file(folder: Path, stem: str, extensions: Sequence[str]) -> RawFile | None:
    """Find `stem` with one of `extensions`, plain, `.gz` or `.zip`; else as a member of any other zip of the folder.

    Raises:
        DataError: two files claim the same stem.
    """
    endings = [extension + compression for extension in extensions for compression in COMPRESSIONS] + [".zip"]
    found = [RawFile(path) for ending in endings if (path := folder / f"{stem}{ending}").is_file()]
    if not found:
        found = [
            RawFile(archive, member)
            for archive in sorted(folder.glob("*.zip"))
            for member in _members(archive)
            if PurePosixPath(member).name in {stem + extension for extension in extensions}
        ]
    if len(found) > 1:
        raise DataError(f"{folder} holds {stem} twice, as {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


def require_file(folder: Path, stem: str, extensions: Sequence[str]) -> RawFile:
    """Like `find_file`, but the file must be there.

    Raises:
        DataError: no such file, listing what the folder holds.
    """
    require_folder(folder)
    file = find_file(folder, stem, extensions)
    if file is None:
        names = sorted(path.name for path in folder.iterdir())
        listed = ", ".join(names[:10]) or "nothing"
        raise DataError(f"no {stem}{extensions[0]} (plain, .gz or .zip) in {folder}; it holds {listed}")
    return file


def iterate_lines(file: RawFile) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers, from 1, and lines without their LF or CRLF; the caller knows the encoding.

    Raises:
        DataError: the file is cut short, is not what its ending says, or cannot be opened.
    """
    try:
        with _open(file) as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted zip
        raise DataError(f"{file.name} is not a readable {file.path.suffix} file ({error}): fetch it again") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{file.name} is cut short or damaged ({error}): fetch it again") from None
    except OSError as error:
        raise DataError(f"{file.name} cannot be read: {error.strerror or error}") from None


@dataclass
class MalformedCounter:
    """Counts the lines of one file and the damaged ones among them, and refuses the file when those are too many."""

    name: str
    max_share: float
    num_lines: int = 0
    num_malformed: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, line_number: int, reason: str) -> None:
        """Count a damaged line; the caller adds it to `num_lines` as it does every other."""
        self.num_malformed += 1
        if len(self.examples) < NUM_EXAMPLES:
            self.examples.append(f"line {line_number}: {reason}")

    def check(self) -> None:
        """Call at the end of the file.

        Raises:
            DataError: the file held no line.
            MalformedLines: the share of damaged lines is above `max_share`.
        """
        if self.num_lines == 0:
            raise DataError(f"{self.name} is empty: fetch it again")
        if self.num_malformed > self.max_share * self.num_lines:
            raise MalformedLines(
                f"{self.name}: {self.num_malformed:,} of {self.num_lines:,} lines are malformed "
                f"({self.num_malformed / self.num_lines:.1%}), limit {self.max_share:.1%}: {'; '.join(self.examples)}; "
                "repair or fetch the file again, or raise dataset.max_malformed_share"
            )

    def warnings(self) -> list[str]:
        """One sentence, or none when no line was damaged."""
        if self.num_malformed == 0:
            return []
        return [f"{self.name}: skipped {self.num_malformed:,} malformed lines: {'; '.join(self.examples)}"]


@contextmanager
def _open(file: RawFile) -> Iterator[Iterable[bytes]]:
    if file.path.suffix == ".gz":
        with gzip.open(file.path, "rb") as stream:
            yield stream
    elif file.path.suffix == ".zip":
        with zipfile.ZipFile(file.path) as archive, archive.open(file.member or _only_member(archive, file)) as stream:
            yield stream
    else:
        with file.path.open("rb") as stream:
            yield stream


def _only_member(archive: zipfile.ZipFile, file: RawFile) -> str:
    names = _file_names(archive)
    if len(names) != 1:
        raise DataError(f"{file.name} holds {len(names)} files ({', '.join(names[:5])}), expected exactly one")
    return names[0]


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _file_names(archive)
    except zipfile.BadZipFile:
        raise DataError(f"{path.name} is not a readable .zip file: fetch it again") from None


def _file_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
