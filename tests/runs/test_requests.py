"""Files of requests or pairs -> a stream of requests: forms, types, and what is refused."""

import pickle
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import DataError
from optirag_core.runs import requests
from optirag_core.runs.requests import grouped, open_requests
from optirag_core.storage.local import LocalStorage
from tests.runs.inputs import (
    NOON,
    REQUEST_ROWS,
    opened,
    pairs_table,
    requests_table,
    rows_of,
    stream,
    write,
)


def test_requests_pass_unchanged(tmp_path):
    path = write(tmp_path / "requests.parquet", requests_table())
    files = opened(path, tmp_path)
    assert (files.form, files.clustered, files.num_rows) == ("requests", True, 4)
    assert list(files.sha256) == ["requests.parquet"]
    assert rows_of(path, tmp_path) == REQUEST_ROWS


def test_pairs_become_requests(tmp_path):
    assert rows_of(write(tmp_path / "pairs.parquet", pairs_table()), tmp_path) == [
        {"user_id": "a", "item_ids": ["i1", None], "as_of": None, "as_of_position": 3},
        {"user_id": "a", "item_ids": ["i2"], "as_of": None, "as_of_position": None},
        {"user_id": "b", "item_ids": ["i1"], "as_of": None, "as_of_position": None},
        {"user_id": None, "item_ids": ["i4", "i5"], "as_of": None, "as_of_position": None},
    ]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    folder = tmp_path / "in"
    for name, row in {"b.parquet": 3, "a/2.parquet": 1, "a/1.parquet": 0, "a.parquet": 2}.items():
        write(folder / name, requests_table([REQUEST_ROWS[row]]))
    for ignored in ("_tmp/x.parquet", ".x.parquet", "_SUCCESS", "read.me", "a/_x.parquet"):
        (folder / ignored).parent.mkdir(exist_ok=True)
        (folder / ignored).write_bytes(b"not Parquet")
    files = opened(folder, tmp_path)
    assert list(files.sha256) == ["a.parquet", "a/1.parquet", "a/2.parquet", "b.parquet"]
    assert rows_of(folder, tmp_path) == [REQUEST_ROWS[row] for row in (2, 0, 1, 3)]


@pytest.mark.parametrize("location", ["s3://bucket/in", "s3://bucket/in/", "s3://bucket/in/a.parquet"])
def test_files_from_elsewhere_are_downloaded(tmp_path, monkeypatch, location):
    """A folder stands in for the bucket; the S3 operations themselves have their own tests."""
    write(tmp_path / "bucket" / "in" / "a.parquet", requests_table())
    monkeypatch.setattr(
        requests, "open_storage", lambda uri, _: LocalStorage(tmp_path / uri.removeprefix("s3://").rstrip("/"))
    )
    files = open_requests(location, StorageSettings(), tmp_path / "scratch")
    assert list(files.sha256) == ["a.parquet"]
    assert files.tables[0].path.is_relative_to(tmp_path / "scratch")
    assert files.tables[0].name == "s3://bucket/in/a.parquet"
    assert [row for table in grouped(files, tmp_path) for row in table.to_pylist()] == REQUEST_ROWS


IDS = pa.array([7, None, 8])
CASTS = {
    "int64": IDS,
    "uint8": IDS.cast(pa.uint8()),
    "large_string": IDS.cast(pa.large_string()),
    "string_view": IDS.cast(pa.string()).cast(pa.string_view()),
    "binary": IDS.cast(pa.string()).cast(pa.binary()),
    "dictionary of strings": IDS.cast(pa.string()).dictionary_encode(),
    "dictionary of numbers": IDS.dictionary_encode(),
}


@pytest.mark.parametrize("ids", CASTS.values(), ids=CASTS)
def test_ids_become_strings(tmp_path, ids):
    path = write(tmp_path / "pairs.parquet", pa.table({"user_id": ids, "item_id": ids}))
    assert [(row["user_id"], row["item_ids"]) for row in rows_of(path, tmp_path)] == [
        ("7", ["7"]), (None, [None]), ("8", ["8"]),
    ]  # fmt: skip


LISTS = {
    "numbers": pa.array([[7, None], None, []]),
    "large": pa.array([["7", None], None, []], pa.large_list(pa.large_string())),
    "dictionary": pa.ListArray.from_arrays(
        pa.array([0, 2, 2, 2]), pa.array(["7", None]).dictionary_encode(), mask=pa.array([False, True, False])
    ),
}


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_lists_of_ids_become_lists_of_strings(tmp_path, lists):
    path = write(tmp_path / "requests.parquet", pa.table({"user_id": [1, 2, 3], "item_ids": lists}))
    assert [row["item_ids"] for row in rows_of(path, tmp_path)] == [["7", None], None, []]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([NOON, None], pa.timestamp("ms", "Europe/Paris")),
        pa.array([NOON.replace(tzinfo=None), None], pa.timestamp("s")),
        pa.array([int(NOON.timestamp()) * 10**9 + 999, None]).cast(pa.timestamp("ns")),
    ],
    ids=lambda times: str(times.type),
)
def test_times_become_microseconds(tmp_path, times):
    path = write(tmp_path / "requests.parquet", pa.table({"user_id": [1, 2], "item_ids": [["x"]] * 2, "as_of": times}))
    assert [row["as_of"] for row in rows_of(path, tmp_path)] == [NOON, None]


def test_dates_and_positions_of_pandas(tmp_path):
    columns = {"as_of": [date(2024, 5, 1), None], "as_of_position": pa.array([3.0, None])}
    path = write(tmp_path / "requests.parquet", pa.table({"user_id": [1, 2], "item_ids": [["x"]] * 2, **columns}))
    [first, second] = rows_of(path, tmp_path)
    assert (first["as_of"], first["as_of_position"]) == (datetime(2024, 5, 1, tzinfo=UTC), 3)
    assert (second["as_of"], second["as_of_position"]) == (None, None)


GOOD = {"user_id": ["a"], "item_ids": [["x"]]}
WRONG = {
    "no user": ({"item_ids": [["x"]]}, "'user_id' is missing"),
    "no items": ({"user_id": ["a"], "items": ["x"]}, "'item_ids' .requests. or column 'item_id'"),
    "both forms": (GOOD | {"item_id": ["x"]}, "expected either column"),
    "float ids": (GOOD | {"user_id": [7.0]}, "'user_id' is double, expected strings or whole numbers"),
    "boolean ids": (GOOD | {"user_id": [True]}, "'user_id' is bool"),
    "items no list": (GOOD | {"item_ids": ["x"]}, "'item_ids' is string, expected lists of strings"),
    "lists of floats": (GOOD | {"item_ids": [[7.0]]}, "'item_ids' is list<element: double>"),
    "lists of lists": (GOOD | {"item_ids": [[["x"]]]}, "'item_ids' is list"),
    "structs": (GOOD | {"user_id": [{"id": "a"}]}, "'user_id' is struct"),
    "times as numbers": (GOOD | {"as_of": [1_714_564_800]}, "'as_of' is int64, expected a timestamp or a date"),
    "times as text": (GOOD | {"as_of": ["2024-05-01"]}, "'as_of' is string"),
    "times of another unit": (
        GOOD | {"as_of": pa.array([10**15], pa.timestamp("ms"))}, "outside of the years 1 to 9998",
    ),
    "positions as text": (GOOD | {"as_of_position": ["3"]}, "'as_of_position' is string"),
    "half positions": (GOOD | {"as_of_position": [3.5]}, "'as_of_position' cannot be used: Float value 3.5"),
    "large positions": (GOOD | {"as_of_position": [2**31]}, "'as_of_position' cannot be used"),
    "no text": (GOOD | {"user_id": [b"\xff\xfe"]}, "'user_id' cannot be used: Invalid UTF8"),
    "misspelt as_of": (GOOD | {"As-Of": [NOON]}, "'As-Of' is unknown: did you mean as_of"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "message"), WRONG.values(), ids=WRONG)
def test_wrong_columns_stop_with_file_and_column(tmp_path, columns, message):
    path = write(tmp_path / "bad.parquet", pa.table(columns))
    with pytest.raises(DataError, match=rf"bad\.parquet.*{message}"):
        opened(path, tmp_path)


def test_a_column_that_is_there_twice(tmp_path):
    path = write(tmp_path / "bad.parquet", pa.table([["a"], [["x"]], ["b"]], names=["user_id", "item_ids", "user_id"]))
    with pytest.raises(DataError, match=r"bad\.parquet: column 'user_id' is there 2 times"):
        opened(path, tmp_path)


def test_text_that_claims_to_be_utf8(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    path = write(tmp_path / "bad.parquet", pa.table({"user_id": broken, "item_id": ["x"]}))
    with pytest.raises(DataError, match=r"bad\.parquet: column 'user_id' cannot be used: .*UTF8"):
        opened(path, tmp_path)


@pytest.mark.parametrize("other", [pairs_table(), requests_table().drop_columns("as_of")], ids=["form", "as_of"])
def test_files_of_one_run_have_the_same_columns(tmp_path, other):
    write(tmp_path / "in" / "a.parquet", requests_table())
    write(tmp_path / "in" / "b.parquet", other)
    with pytest.raises(DataError, match=r"b\.parquet has columns .*a\.parquet has .*: all files of a run"):
        opened(tmp_path / "in", tmp_path)


def test_files_may_differ_in_types(tmp_path):
    write(tmp_path / "in" / "a.parquet", pa.table({"user_id": [1], "item_id": [1]}))
    write(tmp_path / "in" / "b.parquet", pa.table({"user_id": ["1"], "item_id": ["2"]}))
    assert [row["item_ids"] for row in rows_of(tmp_path / "in", tmp_path)] == [["1", "2"]]


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_no_files(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=place):
        opened(tmp_path / place, tmp_path)


def test_files_without_rows(tmp_path):
    path = write(tmp_path / "none.parquet", pairs_table([]))
    assert opened(path, tmp_path).num_rows == 0
    assert stream(path, tmp_path) == []


def test_a_file_that_changes_afterwards_stops_the_stream(tmp_path):
    path = write(tmp_path / "requests.parquet", requests_table())
    files = opened(path, tmp_path)
    write(path, requests_table(REQUEST_ROWS[:3]))
    with pytest.raises(DataError, match=r"requests\.parquet changed"):
        list(grouped(files, tmp_path))


class Bomb:
    def __reduce__(self):
        return (print, ("code from a file ran",))


def test_a_hostile_file_runs_no_code(tmp_path, capsys):
    """A pickle in the metadata that names an extension type: what old readers would have loaded."""
    field = pa.field("user_id", pa.string(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Bomb(), 0),
    })  # fmt: skip
    table = pa.table([["a"], [["x"]]], schema=pa.schema([field, pa.field("item_ids", pa.list_(pa.string()))]))
    path = write(tmp_path / "hostile.parquet", table.replace_schema_metadata({"pandas": pickle.dumps(Bomb(), 0)}))
    assert [row["user_id"] for row in rows_of(path, tmp_path)] == ["a"]
    assert "ran" not in capsys.readouterr().out


POISON = ["", " ", "\x00", "a\x00b", "\n", "\U0001f600", "{{ 7 * 7 }}", "../../etc/passwd", "x" * 2**20]


@pytest.mark.parametrize("clustered", [True, False])
def test_odd_ids_pass_unchanged(tmp_path, clustered):
    order = POISON if clustered else [*POISON, *POISON]
    pairs = [{"user_id": text, "item_id": text} for text in order]
    found = rows_of(write(tmp_path / "pairs.parquet", pairs_table(pairs)), tmp_path)
    copies = 1 if clustered else 2
    assert {row["user_id"]: row["item_ids"] for row in found} == {text: [text] * copies for text in POISON}
    assert len(found) == len(POISON)
