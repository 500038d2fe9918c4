from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.data.schema import RATINGS, TIMESTAMP
from optirag_core.data.tables import load_tables
from optirag_core.errors import DataError

SETTINGS = DatasetSettings(source="tables", path="here")
NOON = datetime(2020, 5, 6, 12, tzinfo=UTC)


@pytest.fixture
def write(tmp_path):
    """Writes a sound folder, with some columns replaced, and returns it."""

    def folder(users=None, items=None, **columns):
        interactions = {"user_id": [1, 2, 1], "item_id": ["a", "a", "b"], "rating": [1, 5, 3], **columns}
        pq.write_table(pa.table(interactions), tmp_path / "interactions.parquet")
        items = items or {"item_id": ["a", "b"], "title": ["First\n&amp; more", ""], "shelf": [7, 8]}
        pq.write_table(pa.table(items), tmp_path / "items.parquet")
        if users is not None:
            pq.write_table(pa.table(users), tmp_path / "users.parquet")
        return tmp_path

    return folder


def test_a_minimal_folder(write):
    data = load_tables(write(), SETTINGS)
    assert data.ratings.schema == RATINGS
    assert data.ratings.to_pylist()[2] == {"user_id": "1", "item_id": "b", "rating": 3.0, "event_time": None}
    assert data.items.to_pylist() == [
        {"item_id": "a", "title": "First & more", "shelf": 7},
        {"item_id": "b", "title": "b", "shelf": 8},
    ]
    assert data.users["user_id"].to_pylist() == ["1", "2"]
    assert "no users.parquet" in data.warnings[0]


def test_further_columns_of_every_table_are_kept(write):
    folder = write(device=["x", "y", "z"], users={"user_id": [2, 3], "age": pa.array([30, 40], pa.int8())})
    data = load_tables(folder, SETTINGS)
    assert data.ratings["device"].to_pylist() == ["x", "y", "z"]
    assert data.users.to_pylist() == [
        {"user_id": "2", "age": 30},
        {"user_id": "3", "age": 40},
        {"user_id": "1", "age": None},
    ]
    assert data.counts["users_without_profile"] == 1
    assert data.warnings == ("1 users of interactions are not in users: their profiles are unknown",)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (pa.timestamp("ns"), NOON.replace(tzinfo=None), NOON),
        (pa.timestamp("s"), NOON.replace(tzinfo=None), NOON),
        (pa.timestamp("ms", tz="Europe/Berlin"), NOON, NOON),
        (pa.date32(), date(2020, 5, 6), datetime(2020, 5, 6, tzinfo=UTC)),
        (pa.date64(), date(2020, 5, 6), datetime(2020, 5, 6, tzinfo=UTC)),
        (pa.null(), None, None),
    ],
)
def test_times_of_any_unit(write, type_, value, expected):
    data = load_tables(write(event_time=pa.array([value] * 3, type_)), SETTINGS)
    assert data.ratings.schema.field("event_time").type == TIMESTAMP
    assert data.ratings["event_time"].to_pylist() == [expected] * 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"event_time": pa.array([NOON, None, NOON], TIMESTAMP)}, r"'event_time' is null in 1 of 3 rows"),
        ({"event_time": ["2020", "2021", "2022"]}, r"'event_time' is string, expected a timestamp or a date"),
        ({"user_id": [1, None, None]}, r"interactions: column 'user_id' is null in 2 of 3 rows"),
        ({"user_id": [1.0, 2.0, 1.0]}, r"interactions\.parquet: column 'user_id' is double, expected strings or whole"),
        ({"item_id": [1.0, 2.0, 1.0]}, r"interactions\.parquet: column 'item_id' is double, expected strings or whole"),
        ({"users": {"user_id": [1.0, 2.0]}}, r"users\.parquet: column 'user_id' is double, .* cast them"),
        ({"items": {"item_id": [1.0], "title": ["x"]}}, r"items\.parquet: column 'item_id' is double"),
        ({"rating": [1.0, None, 2.0]}, r"column 'rating' is null in 1 of 3 rows"),
        ({"rating": [1.0, float("nan"), float("inf")]}, r"column 'rating' is not finite in 2 rows"),
        ({"rating": ["a", "b", "c"]}, r"column 'rating' is string, expected float"),
        ({"item_id": ["a", "x", "y"]}, r"interactions name 2 items that the items table lacks, e\.g\. 'x'"),
        ({"items": {"item_id": ["a", "b"]}}, r"items.parquet: column 'title' is missing"),
        ({"items": {"item_id": ["a", "a", "b"], "title": ["x", "y", "z"]}}, r"items: 1 of 3 rows repeat a item_id"),
        ({"items": {"item_id": ["a", "b"], "title": ["x", None]}}, r"items: column 'title' is null in 1 of 2 rows"),
        ({"users": {"user_id": [1, 1, None]}}, r"users: column 'user_id' is null in 1 of 3 rows"),
    ],
)
def test_what_cannot_be_used_is_refused(write, columns, message):
    with pytest.raises(DataError, match=message):
        load_tables(write(**columns), SETTINGS)


def test_missing_and_unreadable_tables_are_named(write):
    folder = write()
    (folder / "items.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"items\.parquet is not a readable Parquet file"):
        load_tables(folder, SETTINGS)
    (folder / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"no items\.parquet in"):
        load_tables(folder, SETTINGS)
