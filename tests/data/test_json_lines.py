from datetime import UTC, datetime

import pytest

from optirag_core.data.json_lines import BadField, date_time, identifier, read_records, stars, text_of, unix_time
from optirag_core.data.raw_files import RawFile
from optirag_core.errors import DataError, MalformedLines


def read(tmp_path, text, share=1.0):
    path = tmp_path / "reviews.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_records(RawFile(path), share, lambda record: (identifier(record, "id"), stars(record, "stars")))


def test_lines_become_values_and_blank_ones_are_skipped(tmp_path):
    records = read(tmp_path, '{"id": "a", "stars": 5}\r\n\n{"stars": 1.0, "id": " b "}\n')
    assert (records.values, records.num_malformed, records.warnings) == ([("a", 5.0), ("b", 1.0)], 0, ())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{'id': 'a', 'stars': 5}", "not JSON"),  # the 2014 edition's Python-like lines
        (b'{"id": "a", "stars"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["id"]', "a JSON list, expected an object"),
        (b'{"id": "\xff", "stars": 5}', "not UTF-8"),
        (b'{"id": "", "stars": 5}', "id is ''"),
        (b'{"id": 7, "stars": 5}', "id is 7"),
        (b'{"id": "a\\ud800", "stars": 5}', "id is 'a\\ud800'"),
        (b'{"id": "a", "stars": NaN}', "stars is nan"),
        (b'{"id": "a", "stars": true}', "stars is True"),
        (b'{"id": "a", "stars": 0}', "stars is 0"),
        (b'{"id": "a"}', "stars is None"),
    ],
)
def test_damaged_lines_are_counted_with_reason(tmp_path, line, reason):
    records = read(tmp_path, b'{"id": "a", "stars": 5}\n' + line + b"\n")
    assert records.num_malformed == 1
    assert f"line 2: {reason}" in records.warnings[0]
    with pytest.raises(MalformedLines, match=r"reviews\.json: 1 of 2 lines"):
        read(tmp_path, b'{"id": "a", "stars": 5}\n' + line + b"\n", share=0.1)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"reviews\.json is empty"):
        read(tmp_path, "\n\n")


def test_times():
    midnight = datetime(2018, 6, 17, tzinfo=UTC)
    assert unix_time({"t": 1529193600}, "t") == midnight
    assert date_time({"t": "2018-06-17 00:00:00"}, "t") == midnight
    assert date_time({"t": "2018-06-17"}, "t") == midnight
    assert date_time({"t": "2018-06-17T02:00:00+02:00"}, "t") == midnight


@pytest.mark.parametrize("value", [None, True, "1529193600", -1, 1529193600000, float("nan"), 1e400])
def test_bad_seconds(value):
    with pytest.raises(BadField, match=r"t is .*, expected seconds since 1970"):
        unix_time({"t": value}, "t")


@pytest.mark.parametrize("value", [None, 1529193600, "yesterday", "2018-13-01 00:00:00"])
def test_bad_dates(value):
    with pytest.raises(BadField, match=r"t is .*, expected YYYY-MM-DD"):
        date_time({"t": value}, "t")


def test_optional_text():
    assert [text_of(record, "x") for record in ({"x": "y"}, {"x": 3}, {"x": None}, {})] == ["y", "", "", ""]
