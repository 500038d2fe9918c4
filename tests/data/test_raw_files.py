import gzip
import zipfile
from pathlib import Path

import pytest

from optirag_core.data.raw_files import MalformedCounter, RawFile, find_file, iterate_lines, require_file
from optirag_core.errors import DataError, MalformedLines

TEXT = b"first\r\nsecond\nthird\x85still third\n\nlast"
LINES = [(1, b"first"), (2, b"second"), (3, b"third\x85still third"), (4, b""), (5, b"last")]


def write(folder: Path, ending: str) -> Path:
    path = folder / f"Stem{ending}"
    if ending.endswith(".gz"):
        path.write_bytes(gzip.compress(TEXT))
    elif ending.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", TEXT)
    else:
        path.write_bytes(TEXT)
    return path


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.zip", ".zip"])
def test_every_compression_gives_the_same_lines(tmp_path, ending):
    write(tmp_path, ending)
    assert list(iterate_lines(require_file(tmp_path, "Stem", [".csv"]))) == LINES


def test_one_zip_may_hold_all_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr("dump/Stem.csv", TEXT)
        archive.writestr("dump/Other.csv", b"other")
        archive.writestr("__MACOSX/dump/Stem.csv", b"resource fork")
    file = find_file(tmp_path, "Stem", [".csv"])
    assert list(iterate_lines(file)) == LINES
    assert file.name == "dump.zip:dump/Stem.csv"
    assert find_file(tmp_path, "Absent", [".csv"]) is None


def test_two_files_of_one_stem_are_refused(tmp_path):
    write(tmp_path, ".csv")
    write(tmp_path, ".csv.gz")
    with pytest.raises(DataError, match=r"Stem twice, as Stem\.csv and Stem\.csv\.gz"):
        find_file(tmp_path, "Stem", [".csv"])


def test_missing_file_and_folder_say_what_is_there(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"no Stem\.csv .* it holds readme\.txt"):
        require_file(tmp_path, "Stem", [".csv"])
    with pytest.raises(DataError, match=r"no folder at .*--data DIR"):
        require_file(tmp_path / "absent", "Stem", [".csv"])


def test_truncated_gzip_names_the_file(tmp_path):
    path = tmp_path / "Stem.csv.gz"
    whole = gzip.compress(bytes(range(256)) * 4000)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"Stem\.csv\.gz is cut short"):
        list(iterate_lines(RawFile(path)))


def test_damaged_gzip_names_the_file(tmp_path):
    path = write(tmp_path, ".csv.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Stem\.csv\.gz"):
        list(iterate_lines(RawFile(path)))


@pytest.mark.parametrize("ending", [".csv.gz", ".zip"])
def test_a_wrong_ending_names_the_file(tmp_path, ending):
    path = tmp_path / f"Stem{ending}"
    path.write_bytes(TEXT)
    with pytest.raises(DataError, match=rf"Stem{ending} is not a readable {path.suffix} file"):
        list(iterate_lines(RawFile(path)))


def test_a_zip_of_several_files_under_the_stem_is_ambiguous(tmp_path):
    with zipfile.ZipFile(tmp_path / "Stem.zip", "w") as archive:
        archive.writestr("a.csv", b"")
        archive.writestr("b.csv", b"")
    with pytest.raises(DataError, match=r"Stem\.zip holds 2 files \(a\.csv, b\.csv\)"):
        list(iterate_lines(find_file(tmp_path, "Stem", [".csv"])))


def test_malformed_lines_up_to_the_limit_warn():
    counter = MalformedCounter("file.csv", 0.01, num_lines=200)
    counter.add(7, "bad")
    counter.add(9, "worse")
    counter.check()
    assert counter.warnings() == ["file.csv: skipped 2 malformed lines: line 7: bad; line 9: worse"]


def test_malformed_lines_above_the_limit_raise_with_examples():
    counter = MalformedCounter("file.csv", 0.01, num_lines=600)
    for line in range(1, 8):
        counter.add(line, "bad")
    with pytest.raises(MalformedLines) as caught:
        counter.check()
    message = str(caught.value)
    assert message.startswith("file.csv: 7 of 600 lines are malformed (1.2%), limit 1.0%: line 1: bad;")
    assert "line 5: bad; repair" in message
    assert "line 6" not in message
    assert "dataset.max_malformed_share" in message


def test_a_sound_file_gives_no_warning_and_an_empty_one_is_refused():
    counter = MalformedCounter("file.csv", 0.0, num_lines=1)
    counter.check()
    assert counter.warnings() == []
    with pytest.raises(DataError, match=r"file\.csv is empty"):
        MalformedCounter("file.csv", 0.5).check()
