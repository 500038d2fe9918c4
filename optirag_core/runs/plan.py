"""The shards of a run: requests cut, in their order, into files of whole users, before anything scores them."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.dataset import write_table
from optirag_core.data.schema import REQUESTS, require_columns
from optirag_core.manifest import file_sha256
from optirag_core.storage.local import named

PLAIN = r"^[ !#-\[\]-~]*$"
"""Ids that JSON writes as they are: ASCII that is printed, without quote and backslash."""


@dataclass(frozen=True)
class Shard:
    """Requests that an actor scores in one go, in their order."""

    number: int
    rows: int  # requests
    pairs: int
    keys: str  # digest of its pairs
    sha256: str  # of its file

    @property
    def file(self) -> str:
        return shard_file(self.number)


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a run, in order."""

    shards: tuple[Shard, ...]

    @property
    def pairs(self) -> int:
        return sum(shard.pairs for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 over the plan: 64 hex digits."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        return json.dumps([asdict(shard) for shard in self.shards]).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "ShardPlan":
        return cls(tuple(Shard(**shard) for shard in json.loads(text)))


def plan_shards(requests: Iterable[pa.Table], pairs_per_shard: int, folder: Path) -> ShardPlan:
    """Cut a stream of requests into files of about `pairs_per_shard` pairs, never within a user's rows.

    Args:
        requests: tables of `REQUESTS`; the rows of a user are contiguous. As many shards as there are CPUs, and one
            more, are held in memory.
        folder: local folder that the shards are written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_threads, shards = os.cpu_count() or 1, list[Shard]()
    writing: deque[Future[Shard]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for number, table in _cut(requests, pairs_per_shard):
            writing.append(pool.submit(_written, folder, number, table))
            if len(writing) > num_threads:
                shards.append(writing.popleft().result())
        return ShardPlan((*shards, *(each.result() for each in writing)))


def key_digest(user_ids: Sequence[str | None], item_ids: Sequence[str | None]) -> str:
    """sha256 over a bag of pairs: the same for any order, another one when a pair is missing or there twice."""
    pairs = sorted(zip(user_ids, item_ids, strict=True), key=_order)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def shard_file(number: int) -> str:
    return f"shards/{number:06}.parquet"


def _order(pair: tuple[str | None, str | None]) -> tuple[bool, str, bool, str]:
    user, item = pair
    return user is None, user or "", item is None, item or ""


def _cut(requests: Iterable[pa.Table], pairs_per_shard: int) -> Iterator[tuple[int, pa.Table]]:
    """Numbered shards; the loop is over shards, not over the N rows."""
    held: list[pa.Table] = []
    number, pairs, last_user = 0, 0, object()  # equal to no user
    for table in requests:
        table = require_columns(table, REQUESTS, "requests").select(REQUESTS.names)
        if not len(table):
            continue
        stretches = pc.run_end_encode(table["user_id"].combine_chunks())  # R of one user each
        starts = np.r_[0, stretches.run_ends.to_numpy()[:-1]]
        cuts = starts[1:] if stretches.values[0].as_py() == last_user else starts  # rows that may begin a shard
        lengths = pc.fill_null(pc.list_value_length(table["item_ids"]), 0).to_numpy()
        ends = pairs + np.cumsum(np.maximum(1, lengths, dtype=np.int64))  # [N]; rows without pairs take memory, too
        before, start, cut_at = (ends - np.maximum(1, lengths))[cuts], 0, 0
        while (place := int(np.searchsorted(before, cut_at + pairs_per_shard))) < len(cuts):
            row = int(cuts[place])
            yield number, pa.concat_tables([*held, table.slice(start, row - start)])
            number, held, start, cut_at = number + 1, [], row, int(before[place])
        held.append(table.slice(start))
        pairs, last_user = int(ends[-1]) - cut_at, stretches.values[-1].as_py()
    if held:
        yield number, pa.concat_tables(held)


def _written(folder: Path, number: int, table: pa.Table) -> Shard:
    file = folder / Path(shard_file(number)).name
    with named(file):
        write_table(table, file)
    users, items = _pair_columns(table)
    return Shard(number, len(table), len(users), _columns_digest(users, items), file_sha256(file))


def asked_pairs(requests: pa.Table) -> tuple[list[str | None], list[str | None]]:
    """User and item of every pair that requests ask for."""
    users, items = _pair_columns(requests)
    return users.to_pylist(), items.to_pylist()


def _pair_columns(requests: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    users = requests["user_id"].take(pc.list_parent_indices(requests["item_ids"]))
    return users, pc.list_flatten(requests["item_ids"])


def _columns_digest(users: pa.ChunkedArray, items: pa.ChunkedArray) -> str:
    """`key_digest`, by Arrow alone where ids are plain: a third of the time, and other threads run meanwhile."""
    if not all(_is_plain(column) for column in (users, items)):
        return key_digest(users.to_pylist(), items.to_pylist())
    pairs = pa.table([users, items], ["user", "item"])
    pairs = pairs.take(pc.sort_indices(pairs, [("user", "ascending"), ("item", "ascending")]))
    texts = pc.binary_join_element_wise('["', pairs["user"], '", "', pairs["item"], '"]', "").combine_chunks()
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), ", ")[0].as_buffer()
    digest = hashlib.sha256(b"[")
    digest.update(joined)
    digest.update(b"]")
    return digest.hexdigest()


def _is_plain(ids: pa.ChunkedArray) -> bool:
    return not ids.null_count and pc.all(pc.match_substring_regex(ids, PLAIN)).as_py() is not False
