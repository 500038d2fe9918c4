"""Damaged files: each of 200 either stops the run with its name, or gives exactly the original rows."""

import random
import struct
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.data.schema import REQUESTS
from optirag_core.errors import DataError
from tests.runs.inputs import rows_of, write

NUM_MUTATIONS = 200
KINDS = ("flipped", "truncated", "inserted", "zeroed")
ROWS = [
    {
        "user_id": f"u{number}" if number % 17 else None,
        "item_ids": [f"i{(number * 7 + k) % 23}" if k != 3 else None for k in range(number % 5)]
        if number % 11
        else None,
        "as_of": datetime(2024, 1, 1 + number % 20, tzinfo=UTC) if number % 3 else None,
        "as_of_position": number if number % 4 else None,
    }
    for number in range(60)
]
ROWS.sort(key=lambda row: row["user_id"] is None)  # clustered: users without id together


def renamed(table: pa.Table, column: str) -> pa.Table:
    return table.rename_columns([f"{name}_2" if name == column else name for name in table.column_names])


def retyped(table: pa.Table, column: str, target: pa.DataType) -> pa.Table:
    values = table[column].to_pylist()
    if column != "user_id":
        values = [None if value is None else 7 for value in values]
    return table.set_column(table.column_names.index(column), column, pa.array(values).cast(target))


def rewritten(table: pa.Table) -> list[pa.Table | bytes]:
    """Other tables and contents in the file's place."""
    return [
        *(table.drop_columns(name) for name in REQUESTS.names),
        *(renamed(table, name) for name in REQUESTS.names),
        retyped(table, "user_id", pa.binary()),
        retyped(table, "user_id", pa.dictionary(pa.int32(), pa.string())),
        retyped(table, "item_ids", pa.string()),
        retyped(table, "as_of", pa.int64()),
        retyped(table, "as_of", pa.string()),
        retyped(table, "as_of_position", pa.string()),
        retyped(table, "as_of_position", pa.bool_()),
        pa.table({"item_id": ["i1"], "title": ["An items table"]}),
        pa.table({"user_id": ["u1"], "item_id": ["i1"], "score": [0.5]}),
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"user_id,item_ids\nu1,i1\n",
        random.Random(0).randbytes(3_000),
        b"PAR1" + random.Random(1).randbytes(3_000) + struct.pack("<I", 500) + b"PAR1",
    ]


def damaged(content: bytes, kind: str, seed: int) -> bytes:
    chance = random.Random(seed)
    place = chance.randrange(len(content))
    length = chance.choice([1, 2, 8, 64])
    if kind == "flipped":
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if kind == "truncated":
        return content[:place]
    if kind == "inserted":
        return content[:place] + chance.randbytes(length) + content[place:]
    length = min(length, len(content) - place)
    return content[:place] + bytes(length) + content[place + length :]


@pytest.mark.parametrize("layout", [{}, {"use_dictionary": False}], ids=["dictionary", "plain"])
def test_no_damage_is_silent(tmp_path, layout):
    folder = tmp_path / "in"
    write(folder / "a.parquet", pa.Table.from_pylist(ROWS[:30], schema=REQUESTS), row_group_size=15, **layout)
    second = pa.Table.from_pylist(ROWS[30:], schema=REQUESTS)
    path = write(folder / "b.parquet", second, row_group_size=15, **layout)
    whole = path.read_bytes()
    assert rows_of(folder, tmp_path) == ROWS

    mutations = rewritten(second)
    number_of_bytes = NUM_MUTATIONS - len(mutations)
    mutations += [damaged(whole, KINDS[seed % len(KINDS)], seed) for seed in range(number_of_bytes)]
    refused = unchanged = 0
    for mutation in mutations:
        if isinstance(mutation, bytes):
            path.write_bytes(mutation)
        else:
            write(path, mutation)
        try:
            found = rows_of(folder, tmp_path)
        except DataError as error:
            assert "b.parquet" in str(error)
            refused += 1
        else:
            assert found == ROWS
            unchanged += 1
    assert refused + unchanged == NUM_MUTATIONS
    assert refused >= 150


def test_what_only_page_checksums_show(tmp_path):
    """Plain Parquet without them: a flipped bit of a value is another value."""
    table = pa.table({"user_id": ["reader"], "item_ids": [["x"]]})
    path = tmp_path / "requests.parquet"
    for checksums in (False, True):
        pq.write_table(table, path, write_page_checksum=checksums, use_dictionary=False, compression="none")
        content = path.read_bytes()
        path.write_bytes(content.replace(b"reader", b"seader"))
        if checksums:
            with pytest.raises(DataError, match=r"requests\.parquet is not a readable Parquet file: .*CRC"):
                rows_of(path, tmp_path)
        else:
            assert [row["user_id"] for row in rows_of(path, tmp_path)] == ["seader"]


def test_a_page_that_claims_fewer_values(tmp_path):
    """The page's own header is under no checksum: the last item of the last row would be lost."""
    path = write(
        tmp_path / "requests.parquet",
        pa.table({"user_id": ["u"], "item_ids": [[f"i{number}" for number in range(20)]]}),
        use_dictionary=False, compression="none",
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    values = content.index(b"i0") - 4
    places = [place for place in range(values - 60, values) if content[place] == 40]  # 20 as Thrift writes it
    assert places
    messages = []
    for place in places:
        path.write_bytes(content[:place] + bytes([38]) + content[place + 1 :])
        try:
            assert len(rows_of(path, tmp_path)[0]["item_ids"]) == 20
        except DataError as error:
            messages.append(str(error))
    assert any("holds 19 values, its footer says 20" in message for message in messages), messages


@pytest.mark.slow
@pytest.mark.parametrize("part", ["pages", "footer"])
def test_no_single_bit_is_silent(tmp_path, part):
    path = write(tmp_path / "requests.parquet", pa.Table.from_pylist(ROWS[:12], schema=REQUESTS))
    content = path.read_bytes()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    places = range(footer) if part == "pages" else range(footer, len(content))
    expected = rows_of(path, tmp_path)
    for place in places:
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                assert rows_of(path, tmp_path) == expected, (place, bit)
            except DataError:
                continue
