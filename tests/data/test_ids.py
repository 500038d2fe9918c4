"""One rule for a user's own tables and for request files; both are asked about the same columns."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.data.schema import REQUESTS, USERS, require_columns
from optirag_core.errors import DataError
from optirag_core.runs.parquet import RequestTable

TEXT = pa.array(["7", "8"])
NUMBERS = pa.array([7, 8])
IDS = {
    "string": TEXT,
    "large_string": TEXT.cast(pa.large_string()),
    "string_view": TEXT.cast(pa.string_view()),
    "binary": TEXT.cast(pa.binary()),
    "int64": NUMBERS,
    "uint8": NUMBERS.cast(pa.uint8()),
    "dictionary of strings": TEXT.dictionary_encode(),
    "dictionary of numbers": NUMBERS.dictionary_encode(),
}
NO_IDS = {
    "double": NUMBERS.cast(pa.float64()),
    "half float": NUMBERS.cast(pa.float16()),
    "dictionary of floats": NUMBERS.cast(pa.float64()).dictionary_encode(),
    "decimal": NUMBERS.cast(pa.decimal128(20, 0)),
    "bool": pa.array([True, False]),
    "date": pa.array([7, 8], pa.date32()),
}


def read_as_requests(ids, tmp_path):
    pq.write_table(pa.table({"user_id": ids, "item_id": ["x", "y"]}), tmp_path / "requests.parquet")
    [table] = RequestTable(tmp_path / "requests.parquet", "requests.parquet").batches(10)
    return table["user_id"].to_pylist()


def read_as_own_table(ids, _):
    return require_columns(pa.table({"user_id": ids}), USERS, "users.parquet")["user_id"].to_pylist()


READERS = pytest.mark.parametrize("read", [read_as_requests, read_as_own_table])


@READERS
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_text_and_whole_numbers_are_ids(read, ids, tmp_path):
    assert read(ids, tmp_path) == ["7", "8"]


@READERS
@pytest.mark.parametrize("ids", NO_IDS.values(), ids=NO_IDS)
def test_what_is_neither_is_refused_with_what_to_do(read, ids, tmp_path):
    with pytest.raises(DataError, match=r"\.parquet: column 'user_id' is .*, expected strings or whole numbers: cast"):
        read(ids, tmp_path)


def test_lists_of_floats_are_no_candidates():
    table = pa.table({"user_id": ["a"], "item_ids": [[7.0]], "as_of": [None], "as_of_position": [None]})
    with pytest.raises(DataError, match=r"'item_ids' is list<.*double>, expected lists of strings or whole numbers"):
        require_columns(table, REQUESTS, "requests")
    whole = table.set_column(1, "item_ids", pa.array([[7, 8]]))
    assert require_columns(whole, REQUESTS, "requests")["item_ids"].to_pylist() == [["7", "8"]]
