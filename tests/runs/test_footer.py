"""A footer that contradicts itself, or the pages, is refused with the file's name."""

import base64

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.data.schema import PAIRS, REQUESTS
from optirag_core.errors import DataError
from optirag_core.runs.footer import check_footer, check_group, num_values
from tests.runs.inputs import pairs_table, requests_table, write


def claiming(path, table, written):
    """A file of this table whose footer keeps `written` as Arrow's own schema beside Parquet's."""
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(written.serialize().to_pybytes()).decode()})
    return pq.ParquetFile(path)


def test_values_by_hand():
    # Items of the rows: 3 of which one is null, none, 1, null; Parquet counts an empty and a null list as one value.
    assert num_values(requests_table()) == {"user_id": 4, "item_ids": 3 + 1 + 1 + 1, "as_of": 4, "as_of_position": 4}
    assert num_values(pairs_table()) == dict.fromkeys(PAIRS.names, 6)
    assert num_values(requests_table([])) == dict.fromkeys(REQUESTS.names, 0)


@pytest.mark.parametrize("table", [requests_table(), pairs_table()], ids=["requests", "pairs"])
def test_a_whole_file_passes(tmp_path, table):
    file = pq.ParquetFile(write(tmp_path / "whole.parquet", table, row_group_size=2))

    check_footer(file, "whole.parquet")
    for group in range(file.num_row_groups):
        check_group(file, group, num_values(file.read_row_group(group)), "whole.parquet")


def test_two_schemas_with_other_columns(tmp_path):
    written = pa.schema([field.with_name("as_0f") if field.name == "as_of" else field for field in PAIRS])
    file = claiming(tmp_path / "two.parquet", pairs_table(), written)

    with pytest.raises(DataError, match=r"two\.parquet: its footer names the columns .*'as_of'.* and .*'as_0f'"):
        check_footer(file, "two.parquet")


@pytest.mark.parametrize(
    ("unit", "written", "refused"),
    [("us", "s", True), ("us", "ms", True), ("ms", "s", False), ("ms", "us", False), ("us", "us", False)],
)
def test_times_may_be_coarser_than_they_were_written_not_finer(tmp_path, unit, written, refused):
    """Parquet has no seconds: Arrow's writers make milliseconds of them."""
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "as_of": pa.array([7], pa.timestamp(unit, "UTC"))})
    meant = table.schema.set(2, pa.field("as_of", pa.timestamp(written, "UTC")))
    file = claiming(tmp_path / "times.parquet", table, meant)

    if refused:
        with pytest.raises(DataError, match=r"times\.parquet: its footer says that 'as_of' is timestamp"):
            check_footer(file, "times.parquet")
    else:
        check_footer(file, "times.parquet")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", 3, "row group 0 has 3 rows, its footer says 4"),
        ("item_ids", 5, "row group 0 of column 'item_ids' holds 5 values, its footer says 6: the file is damaged"),
        ("as_of", 5, "row group 0 of column 'as_of' holds 5 values, its footer says 4: the file is damaged"),
    ],
)
def test_pages_with_other_numbers_of_values(tmp_path, column, values, message):
    file = pq.ParquetFile(write(tmp_path / "pages.parquet", requests_table()))

    with pytest.raises(DataError, match=f"pages.parquet: {message}"):
        check_group(file, 0, num_values(requests_table()) | {column: values}, "pages.parquet")


def test_columns_that_were_not_read_are_not_compared(tmp_path):
    table = requests_table().append_column("note", pa.array(["a", None, "b", "c"]))
    file = pq.ParquetFile(write(tmp_path / "more.parquet", table))

    check_group(file, 0, num_values(requests_table()), "more.parquet")
