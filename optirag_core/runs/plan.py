"""The shards of a run: requests cut, in their order, into files of whole users, before anything scores them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.dataset import write_table
from optirag_core.data.schema import REQUESTS, require_columns
from optirag_core.manifest import file_sha256
from optirag_core.storage.local import named


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
        requests: tables of `REQUESTS`; the rows of a user are contiguous. One shard is held in memory.
        folder: local folder that the shards are written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return ShardPlan(tuple(_written(folder, number, table) for number, table in _cut(requests, pairs_per_shard)))


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
    number, held, pairs, last_user = 0, [], 0, object()  # equal to no user
    for table in requests:
        table, start = require_columns(table, REQUESTS, "requests").select(REQUESTS.names), 0
        lengths = pc.fill_null(pc.list_value_length(table["item_ids"]), 0).to_pylist()
        for row, (user, length) in enumerate(zip(table["user_id"].to_pylist(), lengths, strict=True)):
            if user != last_user and pairs >= pairs_per_shard:
                yield number, pa.concat_tables([*held, table.slice(start, row - start)])
                number, held, pairs, start = number + 1, [], 0, row
            last_user, pairs = user, pairs + max(1, length)  # rows without pairs take memory, too
        held.append(table.slice(start))
    if sum(map(len, held)):
        yield number, pa.concat_tables(held)


def _written(folder: Path, number: int, table: pa.Table) -> Shard:
    file = folder / Path(shard_file(number)).name
    with named(file):
        write_table(table, file)
    users, items = asked_pairs(table)
    return Shard(number, len(table), len(users), key_digest(users, items), file_sha256(file))


def asked_pairs(requests: pa.Table) -> tuple[list[str | None], list[str | None]]:
    """User and item of every pair that requests ask for."""
    users = requests["user_id"].take(pc.list_parent_indices(requests["item_ids"]))
    return users.to_pylist(), pc.list_flatten(requests["item_ids"]).to_pylist()
