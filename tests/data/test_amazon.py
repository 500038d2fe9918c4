import gzip
import json
from datetime import UTC, datetime

import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.data.amazon import load_amazon
from optirag_core.errors import DataError, MalformedLines


def amazon_settings(**changes):
    return DatasetSettings.model_validate({"source": "amazon", "path": "here", **changes})


def write_lines(path, records):
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)


def review(user, item, stars=5.0, time=1529193600):
    return {"reviewerID": user, "asin": item, "overall": stars, "unixReviewTime": time, "reviewText": "text"}


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path / "Gift_Cards_5.json.gz", [review("u1", "i1"), review("u2", "i2", 2.0), review("u1", "i3")])
    write_lines(
        tmp_path / "meta_Gift_Cards.json.gz",
        [
            {"asin": "i1", "title": " Maggiano&#39;s <b>Card</b>", "price": "$1,250.00", "brand": "Maggiano"},
            {"asin": "i1", "title": "a repeated line", "price": "$1", "brand": ""},
            {"asin": "i2", "title": "var aPageStart = (new Date()).getTime();", "price": "$1 - $2", "brand": ""},
            {"asin": "i4", "title": "never reviewed", "price": ".a-box-inner{background-color:#fff}", "brand": "\n"},
        ],
    )
    return tmp_path


def test_reviews_with_metadata(folder):
    data = load_amazon(folder, amazon_settings())
    assert data.ratings.to_pylist()[1] == {
        "user_id": "u2",
        "item_id": "i2",
        "rating": 2.0,
        "event_time": datetime(2018, 6, 17, tzinfo=UTC),
    }
    assert data.users.to_pylist() == [{"user_id": "u1"}, {"user_id": "u2"}]
    assert data.items.to_pylist() == [
        {"item_id": "i1", "title": "Maggiano's Card", "price": 1250.0, "brand": "Maggiano"},
        {"item_id": "i2", "title": "i2", "price": None, "brand": None},
        {"item_id": "i3", "title": "i3", "price": None, "brand": None},
        {"item_id": "i4", "title": "never reviewed", "price": None, "brand": None},
    ]
    assert data.counts["items_without_title"] == 2
    assert data.warnings == ("2 of 4 items have no title (meta_Gift_Cards gives them none): their ids stand in for it",)


@pytest.mark.parametrize(
    ("raw", "price"), [("$8.27", 8.27), ("$25", 25.0), ("12.5", 12.5), ("", None), ("$1,2", None), ("free", None)]
)
def test_prices(folder, raw, price):
    write_lines(folder / "meta_Gift_Cards.json.gz", [{"asin": "i1", "title": "t", "price": raw}])
    assert load_amazon(folder, amazon_settings()).items["price"].to_pylist()[0] == pytest.approx(price)


def test_several_categories_need_a_choice(folder):
    write_lines(folder / "All_Beauty_5.json", [review("u9", "b1")])
    with pytest.raises(DataError, match=r"reviews of All_Beauty_5, Gift_Cards_5: choose one with --dataset\.category"):
        load_amazon(folder, amazon_settings())
    for category in ("All_Beauty", "All_Beauty_5"):
        assert load_amazon(folder, amazon_settings(category=category)).users["user_id"].to_pylist() == ["u9"]
    with pytest.raises(DataError, match=r"category 'Books' .* it has All_Beauty_5, Gift_Cards_5"):
        load_amazon(folder, amazon_settings(category="Books"))


def test_the_exact_name_wins_over_the_5_core(folder):
    write_lines(folder / "Gift_Cards.json", [review("everyone", "i1")])
    exact = load_amazon(folder, amazon_settings(category="Gift_Cards"))
    assert exact.users["user_id"].to_pylist() == ["everyone"]
    assert exact.items["title"].to_pylist()[0] == "Maggiano's Card"
    assert load_amazon(folder, amazon_settings(category="Gift_Cards_5")).counts["num_users"] == 2


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="with reviews in"):
        load_amazon(tmp_path, amazon_settings())


def test_python_like_lines_are_malformed(folder):
    (folder / "Gift_Cards_5.json.gz").write_bytes(gzip.compress(b"{'reviewerID': 'u1', 'asin': 'i1', 'overall': 5}\n"))
    with pytest.raises(MalformedLines, match=r"Gift_Cards_5\.json\.gz: 1 of 1 lines .*not JSON"):
        load_amazon(folder, amazon_settings())


def test_real_gift_cards_have_titles(real_data):
    data = load_amazon(real_data("amazon"), amazon_settings(category="Gift_Cards"))
    assert (data.counts["num_ratings"], data.counts["num_users"], data.counts["num_items"]) == (2972, 458, 1547)
    assert (data.counts["items_without_title"], data.warnings) == (0, ())
    assert "Maggiano's Gift Card" in data.items["title"].to_pylist()
    assert data.items["price"].null_count == 1185 + 4  # empty, white space, and style sheets


def test_real_all_beauty_has_no_metadata(real_data):
    data = load_amazon(real_data("amazon"), amazon_settings(category="All_Beauty"))
    assert (data.counts["num_ratings"], data.counts["num_users"]) == (5269, 991)
    assert data.items["title"].equals(data.items["item_id"])
    assert data.warnings[0].startswith("85 of 85 items have no title (there is no meta_All_Beauty.json)")
