"""Small files of requests and pairs, and what a stream of them should be."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.config.run import StorageSettings
from optirag_core.data.schema import PAIRS, REQUESTS
from optirag_core.runs.requests import grouped, open_requests

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
