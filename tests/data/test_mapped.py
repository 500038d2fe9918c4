from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.data import mapped
from optirag_core.data.mapped import FENCE, SortedIds, one_batch, open_mapped, write_mapped

TEXT = st.text(max_size=3)


@given(known=st.sets(TEXT), asked=st.lists(TEXT))
def test_an_id_is_found_at_its_row_and_no_other(known, asked):
    ids = SortedIds.of(pa.chunked_array([list(known)], pa.string()))
    assert list(ids) == sorted(known)
    expected = {value: row for row, value in enumerate(sorted(known))}
    assert [ids.row(value) for value in [*known, *asked]] == [expected.get(value, -1) for value in [*known, *asked]]


@given(known=st.sets(TEXT), asked=st.lists(st.none() | TEXT), few=st.booleans())
def test_rows_of_a_column_are_those_of_each_id(known, asked, few):
    ids = SortedIds.of(pa.chunked_array([list(known)], pa.string()))
    with mock.patch.object(mapped, "SEARCHES_PER_HASH", 0 if few else 10**6):
        found = ids.rows(pa.chunked_array([asked, asked], pa.string()))
    assert found.tolist() == 2 * [ids.row(value) for value in asked]


@pytest.mark.parametrize("odd", [None, 7, b"a", "\ud800"], ids=ascii)
def test_what_no_column_of_text_can_hold_is_not_there(odd):
    assert SortedIds(pa.array(["a", "b", "\U0001f600"], pa.large_string())).row(odd) == -1


def test_a_slice_of_ids_counts_from_its_own_start():
    ids = SortedIds(pa.array(["a", "b", "c", "d"], pa.large_string()).slice(1, 2))
    assert (list(ids), ids.row("a"), ids.row("b"), ids.row("c"), ids.row("d")) == (["b", "c"], -1, 0, 1, -1)


def test_what_was_written_is_mapped_and_not_read(tmp_path):
    numbers = pa.array(range(100_000), pa.int64())
    write_mapped(pa.record_batch({"number": numbers}), tmp_path / "numbers.arrow")
    before = pa.total_allocated_bytes()
    batch = open_mapped(tmp_path / "numbers.arrow")
    assert batch["number"].equals(numbers)
    assert pa.total_allocated_bytes() - before < numbers.nbytes / 10
    assert not batch["number"].to_numpy().flags.owndata  # a view: zero_copy_only is the default


def test_chunks_of_all_types_come_in_one_piece():
    table = pa.table({"text": ["a", None], "list": [["x"], None], "number": [1, 2]})
    batch = one_batch(pa.concat_tables([table, table]))
    assert batch.schema.field("text").type == pa.large_string()
    assert batch.to_pylist() == [*table.to_pylist(), *table.to_pylist()]
    assert one_batch(table.slice(0, 0)).num_rows == 0


def test_every_id_of_many_is_found_on_either_side_of_a_fence():
    known = [f"{number:04d}" for number in range(0, 2 * (3 * FENCE + 1), 2)]
    ids = SortedIds(pa.array(known, pa.large_string()))
    assert [ids.row(value) for value in known] == list(range(len(known)))
    assert {ids.row(f"{number:04d}") for number in range(1, 2 * len(known), 2)} == {-1}
