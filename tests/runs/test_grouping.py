"""Rows of users in any order -> whole users, against a naive grouping in memory; memory stays flat."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.data.schema import PAIRS
from optirag_core.errors import StorageFull
from optirag_core.runs import grouping
from optirag_core.runs.requests import grouped
from tests.runs.inputs import (
    NOON,
    by_user,
    naive,
    opened,
    pairs_table,
    requests_table,
    rows_of,
    stream,
    write,
)

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


def test_a_user_who_comes_back_is_found_while_users_are_many(monkeypatch):
    monkeypatch.setattr(grouping, "CHECK_AT", 4)
    returning = grouping.ReturningUsers()
    for user in ("a", "a", "b", None, "c", "d", "e"):
        returning.add(pa.chunked_array([[user, user]], pa.string()))
    assert not returning.found
    returning.add(pa.chunked_array([[None, "f", "g", "h"]], pa.string()))
    assert returning.found


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
