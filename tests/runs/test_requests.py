"""Files of requests or pairs -> a stream of whole users, against a naive grouping in memory."""

import pickle
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.config import StorageSettings
from optirag_core.data.schema import PAIRS, REQUESTS
from optirag_core.errors import DataError, StorageFull
from optirag_core.runs import grouping, requests
from optirag_core.runs.requests import grouped, open_requests
from optirag_core.storage.local import LocalStorage

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
REQUEST_ROWS = [
    {"user_id": "a", "item_ids": ["i1", None, "i2"], "as_of": NOON, "as_of_position": 3},
    {"user_id": "a", "item_ids": [], "as_of": None, "as_of_position": None},
    {"user_id": None, "item_ids": ["i1"], "as_of": None, "as_of_position": 0},
    {"user_id": "b", "item_ids": None, "as_of": NOON, "as_of_position": None},
]
PAIR_ROWS = [
    {"user_id": user, "item_id": item, "as_of": None, "as_of_position": position}
    for user, item, position in [
        ("a", "i1", 3), ("a", "i2", None), ("a", None, 3), ("b", "i1", None), (None, "i4", None), (None, "i5", None),
    ]
]  # fmt: skip


def write(path: Path, table: pa.Table, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, write_page_checksum=True, **options)
    return path


def requests_table(rows=REQUEST_ROWS) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=REQUESTS)


def pairs_table(rows=PAIR_ROWS) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PAIRS)


def opened(location: Path, scratch: Path):
    return open_requests(str(location), StorageSettings(), scratch)


def stream(location: Path, scratch: Path, **options) -> list[pa.Table]:
    return list(grouped(opened(location, scratch), scratch, **options))


def rows_of(location: Path, scratch: Path, **options) -> list[dict]:
    tables = stream(location, scratch, **options)
    assert all(table.schema == REQUESTS for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def naive(rows: list[dict]) -> list[dict]:
    """Pairs -> requests, users in the order of their first appearance."""
    users: dict = {}
    for row in rows:
        key = (row["as_of"], row["as_of_position"])
        users.setdefault(row["user_id"], {}).setdefault(key, []).append(row["item_id"])
    return [
        {"user_id": user, "item_ids": items, "as_of": as_of, "as_of_position": position}
        for user, groups in users.items()
        for (as_of, position), items in groups.items()
    ]


def by_user(rows: list[dict]) -> dict:
    """Each user's rows in order; fails where a user comes back."""
    users: dict = {}
    last = object()
    for row in rows:
        if row["user_id"] != last:
            assert row["user_id"] not in users
        last = row["user_id"]
        users.setdefault(last, []).append(row)
    return users


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


users = st.sampled_from(["a", "b", "c", "dd", "", "\x00", None])
cells = st.tuples(
    users, st.sampled_from(["x", "y", None]), st.sampled_from([None, NOON]), st.sampled_from([None, 0, 5])
)


@examples(max_examples=150, deadline=None)
@given(
    rows=st.lists(cells, max_size=40),
    sort=st.booleans(),
    batch_rows=st.integers(1, 50),
    group_rows=st.integers(1, 50),
    num_files=st.integers(1, 3),
    bucket_bytes=st.sampled_from([2**26, 50]),
)
def test_grouping_equals_a_dictionary(tmp_path_factory, rows, sort, batch_rows, group_rows, num_files, bucket_bytes):
    folder = tmp_path_factory.mktemp("grouping")
    if sort:
        rows = sorted(rows, key=lambda row: str(row[0]))
    rows = [dict(zip(PAIRS.names, row, strict=True)) for row in rows]
    cuts = np.linspace(0, len(rows), num_files + 1).astype(int)
    for number in range(num_files):
        part = pairs_table(rows[cuts[number] : cuts[number + 1]])
        write(folder / "in" / f"{number}.parquet", part, row_group_size=group_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "BUCKET_BYTES", bucket_bytes)
        found = rows_of(folder / "in", folder, batch_rows=batch_rows)
        again = rows_of(folder / "in", folder, batch_rows=batch_rows + 7)
    expected = naive(rows)
    assert found == again
    assert by_user(found) == by_user(expected)
    clustered = len({row["user_id"] for row in rows}) == sum(
        row["user_id"] != before["user_id"] for row, before in zip(rows, [{"user_id": rows}, *rows], strict=False)
    )
    assert opened(folder / "in", folder).clustered == clustered
    if clustered:
        assert found == expected
    assert [path.name for path in folder.iterdir()] == ["in"]


@examples(max_examples=50, deadline=None)
@given(chosen=st.lists(st.tuples(users, st.lists(st.sampled_from(["x", None]), max_size=3) | st.none()), max_size=20))
def test_requests_that_come_back_keep_their_rows(tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("grouping")
    rows = [
        {"user_id": user, "item_ids": items, "as_of": None, "as_of_position": number}
        for number, (user, items) in enumerate(chosen)
    ]
    path = write(folder / "requests.parquet", requests_table(rows), row_group_size=7)
    expected: dict = {}
    for row in rows:
        expected.setdefault(row["user_id"], []).append(row)
    assert by_user(rows_of(path, folder)) == expected


def test_no_user_is_in_two_tables(tmp_path):
    rows = [{"user_id": f"u{number // 10}", "item_id": f"i{number}"} for number in range(100)]
    tables = stream(write(tmp_path / "p.parquet", pairs_table(rows), row_group_size=3), tmp_path, batch_rows=3)
    seen = [set(table["user_id"].to_pylist()) for table in tables]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 10


def test_runs_are_compared_while_they_grow(monkeypatch):
    monkeypatch.setattr(grouping, "CHECK_AT", 4)
    runs = grouping.UserRuns()
    for user in ("a", "a", "b", None, "c", "d", "e"):
        runs.add(pa.chunked_array([[user, user]], pa.string()))
    assert not runs.repeat
    runs.add(pa.chunked_array([[None, "f", "g", "h"]], pa.string()))
    assert runs.repeat


@pytest.mark.parametrize("clustered", [True, False])
def test_memory_is_flat(tmp_path, clustered):
    """Ten times the pairs take about the same memory."""

    def peak(num_pairs: int) -> int:
        numbers = np.arange(num_pairs)
        users = numbers // 20 if clustered else numbers % (num_pairs // 20)
        table = pa.table({"user_id": pa.array(users).cast(pa.string()), "item_id": pa.array(numbers).cast(pa.string())})
        path = write(tmp_path / f"{num_pairs}.parquet", table, row_group_size=1_000)
        del table
        before, highest, count = pa.total_allocated_bytes(), 0, 0
        for table in grouped(opened(path, tmp_path), tmp_path, batch_rows=2_000):
            highest = max(highest, pa.total_allocated_bytes() - before)
            count += sum(len(items) for items in table["item_ids"].to_pylist())
        assert count == num_pairs
        return highest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "BUCKET_BYTES", 2**18)
        small, large = peak(20_000), peak(200_000)
    assert large < 1.5 * small + 2**18
    assert large < 3 * 2**20  # the rows themselves have 6 MiB


def test_a_full_scratch_folder_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    rows = [{"user_id": user, "item_id": "x"} for user in "aba"]
    path = write(tmp_path / "p.parquet", pairs_table(rows))
    monkeypatch.setattr(grouping.pa.ipc, "new_stream", full)
    with pytest.raises(StorageFull, match="no space left in"):
        stream(path, tmp_path)
