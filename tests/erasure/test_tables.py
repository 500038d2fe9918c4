"""Rows leave tables, and nothing of them stays in the files."""

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.erasure.tables import file_holds, holds, rewrite_parquet, without_user

TABLE = pa.table({"user_id": ["a", None, "b", "a"], "n": [1, 2, 3, 4]})


def test_everybody_else_stays_in_order_also_rows_without_a_user():
    assert without_user(TABLE, "a").to_pylist() == [{"user_id": None, "n": 2}, {"user_id": "b", "n": 3}]
    assert without_user(TABLE, "c").equals(TABLE)


def test_dictionaries_keep_no_value_without_a_row():
    table = pa.table({"user_id": pa.array(["secret", "b"]).dictionary_encode(), "n": [1, 2]})
    left = without_user(table, "secret")
    assert left.schema == table.schema
    assert left["user_id"].combine_chunks().dictionary.to_pylist() == ["b"]


def test_a_table_without_users_holds_nobody(tmp_path):
    assert not holds(pa.table({"item_id": ["a"]}), "a")
    assert holds(TABLE, "a") and not holds(TABLE, "c")
    pq.write_table(pa.table({"item_id": ["a"]}), tmp_path / "items.parquet")
    assert not file_holds(tmp_path / "items.parquet", "a")


def test_a_file_is_written_only_where_it_held_the_user(tmp_path):
    file, target = tmp_path / "a.parquet", tmp_path / "new" / "a.parquet"
    pq.write_table(TABLE, file)

    assert rewrite_parquet(file, "c", target) is None
    assert not target.exists()
    assert rewrite_parquet(file, "a", target) == 2
    assert pq.read_table(target)["n"].to_pylist() == [2, 3]
