import json
from datetime import UTC, datetime

import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.data.yelp import load_yelp
from optirag_core.errors import DataError

SETTINGS = DatasetSettings(source="yelp", path="here")


def write_lines(folder, name, records):
    (folder / f"yelp_academic_dataset_{name}.json").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def folder(tmp_path):
    write_lines(
        tmp_path,
        "review",
        [
            {"user_id": "u1", "business_id": "b1", "stars": 5.0, "date": "2014-02-05 20:30:30"},
            {"user_id": "u2", "business_id": "gone", "stars": 1.0, "date": "2015-01-04 00:01:03"},
        ],
    )
    write_lines(
        tmp_path,
        "business",
        [{"business_id": "b1", "name": "Caf\u00e9 &amp; Bar", "city": "Affton", "state": "MO", "categories": None}],
    )
    write_lines(
        tmp_path,
        "user",
        [
            {"user_id": "u1", "yelping_since": "2009-01-02 03:04:05", "fans": 4711, "average_stars": 4.9},
            {"user_id": "u3", "yelping_since": "long ago", "fans": -1, "average_stars": 4.9},
        ],
    )
    return tmp_path


def test_three_files(folder):
    data = load_yelp(folder, SETTINGS)
    assert data.ratings.to_pylist()[0] == {
        "user_id": "u1",
        "item_id": "b1",
        "rating": 5.0,
        "event_time": datetime(2014, 2, 5, 20, 30, 30, tzinfo=UTC),
    }
    assert data.items.to_pylist() == [
        {"item_id": "b1", "title": "Café & Bar", "city": "Affton", "state": "MO", "categories": None},
        {"item_id": "gone", "title": "gone", "city": None, "state": None, "categories": None},
    ]
    assert data.users.to_pylist() == [
        {"user_id": "u1", "joined": "2009-01-02"},
        {"user_id": "u2", "joined": None},
        {"user_id": "u3", "joined": None},
    ]
    assert (data.counts["items_without_title"], data.counts["users_without_profile"]) == (1, 1)
    assert data.warnings[0].startswith("1 of 2 reviews are of 1 businesses that the business file lacks")


def test_what_the_publisher_knew_on_the_day_of_the_dump_reaches_no_table(folder):
    """Two planted leaks: average_stars covers test reviews, and fans were counted after the last of them."""
    data = load_yelp(folder, SETTINGS)
    assert data.users.column_names == ["user_id", "joined"]
    values = {str(value) for table in (data.users, data.items) for row in table.to_pylist() for value in row.values()}
    assert "2009-01-02" in values
    assert not {"4.9", "4711"} & values


def test_the_users_file_is_optional_and_the_others_are_not(folder):
    (folder / "yelp_academic_dataset_user.json").unlink()
    data = load_yelp(folder, SETTINGS)
    assert data.users["user_id"].to_pylist() == ["u1", "u2"]
    assert "no yelp_academic_dataset_user.json" in data.warnings[-1]
    (folder / "yelp_academic_dataset_business.json").unlink()
    with pytest.raises(DataError, match=r"no yelp_academic_dataset_business\.json"):
        load_yelp(folder, SETTINGS)


def test_real_sample(real_data):
    data = load_yelp(real_data("yelp"), SETTINGS)
    assert data.counts["num_ratings"] == 999
    assert data.ratings["event_time"].null_count == 0
    assert data.warnings[0].startswith("922 of 999 reviews are of 759 businesses that the business file lacks")
