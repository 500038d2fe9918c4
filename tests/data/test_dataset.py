import pyarrow as pa

from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from tests.prompting.conftest import interactions

SMALL = Dataset(
    interactions(("b", "x", 5, "train", 10), ("a", "y", 1, "test", 20)),
    users=pa.table({"user_id": ["b", "a"], "age": [None, 7]}),
    items=pa.table({"item_id": ["y", "x"], "title": ["Y", "X"]}),
    info={"source": "tables"},
)


def test_tables_come_back_as_they_were(tmp_path):
    SMALL.save(tmp_path)
    assert Dataset.load(tmp_path) == SMALL


def test_prompts_need_no_table(tmp_path):
    SMALL.save(tmp_path)
    for path in [*tmp_path.glob("*.parquet"), *tmp_path.glob("*.json")]:
        path.unlink()
    histories = Histories.open(tmp_path)
    assert [shown.item_id for shown in histories.of_target(histories.past("b"), limit=5)] == ["x"]
    assert Rows.open(tmp_path, "user")["a"] == {"user_id": "a", "age": 7}
    assert Rows.open(tmp_path, "item")["x"] == {"item_id": "x", "title": "X"}
