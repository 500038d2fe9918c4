import pyarrow as pa
import pytest

from optirag_core.data.rows import Rows

ITEMS = pa.table(
    {"title": ["B", "A", None], "item_id": ["b", "a", "c"], "tags": [["x", "y"], [], None], "price": [1.5, None, 2.0]}
)


@pytest.fixture(params=["in memory", "mapped"])
def rows(request, tmp_path):
    made = Rows.of(ITEMS, "item")
    made.save(tmp_path)
    return made if request.param == "in memory" else Rows.open(tmp_path, "item")


def test_a_row_is_found_by_its_id(rows):
    assert {value: rows[value] for value in "abc"} == {row["item_id"]: row for row in ITEMS.to_pylist()}
    assert list(rows["a"]) == ITEMS.column_names
    assert (list(rows), len(rows)) == (["a", "b", "c"], 3)


@pytest.mark.parametrize("unknown", ["", "aa", "d", None])
def test_an_unknown_id_has_no_row(rows, unknown):
    assert unknown not in rows
    assert rows.get(unknown) is None
    with pytest.raises(KeyError):
        rows[unknown]


def test_a_blank_row_has_nulls_beside_its_id(rows):
    assert rows.blank("d") == {"title": None, "item_id": "d", "tags": None, "price": None}


def test_an_empty_table_has_no_rows(tmp_path):
    Rows.of(ITEMS.slice(0, 0), "item").save(tmp_path)
    assert "a" not in Rows.open(tmp_path, "item")
