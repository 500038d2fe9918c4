"""Shards: whole users, every pair once, the same files for the same stream however it is chunked."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optirag_core.data.schema import REQUESTS
from optirag_core.manifest import file_sha256
from optirag_core.runs.plan import ShardPlan, asked_pairs, key_digest, plan_shards
from tests.runs.small import small_requests

IDS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b", "item-1", "1 ", '"', "\\", "\x7f", "\n"]))
"""Ids that JSON writes as they are, and others."""
USERS = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4)), min_size=1, max_size=12)


def test_shards_by_hand(tmp_path):
    lengths = [3, 1, 0, 7, 2, 2]
    rows = [{"user_id": str(n), "item_ids": ["i"] * length} for n, length in enumerate(lengths)]

    plan = plan_shards([pa.Table.from_pylist(rows, schema=REQUESTS)], 4, tmp_path)

    # A shard ends with the user that takes it to 4 pairs: 3 + 1 | 0 + 7 | 2 + 2.
    files = [pq.read_table(tmp_path / f"{n:06}.parquet")["user_id"].to_pylist() for n in range(3)]
    assert files == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert [(shard.rows, shard.pairs) for shard in plan.shards] == [(2, 4), (2, 7), (2, 4)]
    assert plan.pairs == 15


@given(USERS, st.integers(1, 6), st.integers(1, 5))
def test_no_user_is_split_and_no_pair_is_lost(tmp_path_factory, users, pairs_per_shard, chunk):
    users = sorted(users, key=lambda user: user[0] or "")  # contiguous
    rows = [{"user_id": user, "item_ids": [str(n) for n in range(length)]} for user, length in users]
    table = pa.Table.from_pylist(rows, schema=REQUESTS)
    folder, other = tmp_path_factory.mktemp("plan"), tmp_path_factory.mktemp("plan")

    plan = plan_shards([table], pairs_per_shard, folder)
    chunked = plan_shards([table.slice(n, chunk) for n in range(0, len(table), chunk)], pairs_per_shard, other)

    shards = [pq.read_table(folder / f"{shard.number:06}.parquet") for shard in plan.shards]
    assert pa.concat_tables(shards).equals(table)
    owners = [user for shard in shards for user in set(shard["user_id"].to_pylist())]
    assert len(owners) == len(set(owners))
    assert [(s.rows, s.pairs, s.keys) for s in plan.shards] == [(s.rows, s.pairs, s.keys) for s in chunked.shards]


def test_a_plan_survives_its_file(tmp_path):
    plan = plan_shards([small_requests()], 4, tmp_path)

    assert ShardPlan.from_json(plan.to_json()) == plan
    assert [shard.sha256 for shard in plan.shards] == [file_sha256(file) for file in sorted(tmp_path.iterdir())]


def test_the_digest_of_pairs_knows_a_bag():
    users, items = asked_pairs(small_requests())
    digest = key_digest(users, items)

    assert key_digest(users[::-1], items[::-1]) == digest
    assert key_digest(users[1:], items[1:]) != digest
    assert key_digest([*users, users[0]], [*items, items[0]]) != digest
    assert key_digest(["a", "b"], ["c", "d"]) != key_digest(["a", "b"], ["d", "c"])
    assert key_digest(["a", None], [None, "a"]) != key_digest(["a", "None"], ["None", "a"])


@given(st.lists(st.tuples(IDS, st.lists(IDS, max_size=4)), min_size=1, max_size=9))
def test_a_shards_digest_is_that_of_its_pairs_whatever_the_ids(tmp_path_factory, rows):
    table = pa.Table.from_pylist([{"user_id": user, "item_ids": items} for user, items in rows], schema=REQUESTS)

    [shard] = plan_shards([table], 1000, tmp_path_factory.mktemp("plan")).shards

    assert shard.keys == key_digest(*asked_pairs(table))


def test_the_digest_of_a_plain_shard_by_hand(tmp_path):
    rows = [{"user_id": "v", "item_ids": ["2", "1"]}, {"user_id": "u", "item_ids": ["3"]}]

    [shard] = plan_shards([pa.Table.from_pylist(rows, schema=REQUESTS)], 1000, tmp_path).shards

    assert shard.keys == hashlib.sha256(b'[["u", "3"], ["v", "1"], ["v", "2"]]').hexdigest()


@pytest.mark.parametrize("column", ["user_id", "item_ids"])
def test_nulls_are_pairs_or_none(tmp_path, column):
    rows = [{"user_id": "u", "item_ids": ["1", None]}, {"user_id": "v", "item_ids": ["2"]}]
    rows[1][column] = None

    plan = plan_shards([pa.Table.from_pylist(rows, schema=REQUESTS)], 100, tmp_path)

    assert plan.pairs == (3 if column == "user_id" else 2)
