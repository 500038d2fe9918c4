import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.config.data import DatasetSettings, SyntheticSettings
from optirag_core.data.loading import load_raw
from optirag_core.data.schema import ITEMS, RATINGS, USERS, require_columns
from optirag_core.data.splits import requests_for, split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.errors import DataError


def check_contract(data):
    """What every loader promises."""
    assert data.ratings.select(RATINGS.names).schema == RATINGS
    require_columns(data.users, USERS, "users")
    require_columns(data.items, ITEMS, "items")
    users, items = data.users["user_id"].to_pylist(), data.items["item_id"].to_pylist()
    assert len(set(users)) == len(users)
    assert len(set(items)) == len(items)
    assert set(data.ratings["user_id"].to_pylist()) <= set(users)
    assert set(data.ratings["item_id"].to_pylist()) <= set(items)
    assert all(data.items["title"].to_pylist())
    assert data.counts["num_ratings"] == data.ratings.num_rows


def test_synthetic_reads_as_bookcrossing(tmp_path):
    write_synthetic(tmp_path, SyntheticSettings(num_users=50, num_books=40), seed=0)
    settings = DatasetSettings(source="synthetic", like_threshold=5)
    data = load_raw(settings, folder=tmp_path)
    check_contract(data)
    interactions, counts = split_interactions(data.ratings, settings, seed=0)
    assert min(counts.train, counts.tune, counts.validation, counts.test) > 0
    assert requests_for(interactions, "test").num_rows <= 50


def test_tables_source(tmp_path):
    pq.write_table(pa.table({"user_id": [1], "item_id": ["a"], "rating": [4]}), tmp_path / "interactions.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "title": ["A"]}), tmp_path / "items.parquet")
    check_contract(load_raw(DatasetSettings(source="tables", path="here"), folder=tmp_path))


@pytest.mark.parametrize(
    ("source", "folder", "category"),
    [("bookcrossing", "bookcrossing", None), ("amazon", "amazon", "Gift_Cards"), ("yelp", "yelp", None)],
)
def test_real_data_keep_the_contract(real_data, source, folder, category):
    settings = DatasetSettings(source=source, path="here", category=category)
    check_contract(load_raw(settings, folder=real_data(folder)))


@pytest.mark.parametrize("source", ["synthetic", "bookcrossing", "amazon", "yelp", "tables"])
def test_an_empty_folder_is_a_data_error(tmp_path, source):
    with pytest.raises(DataError, match=str(tmp_path)):
        load_raw(DatasetSettings(source=source, path="here"), folder=tmp_path)
