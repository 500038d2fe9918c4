"""The output of one shard: written under a name of its own, valid from the moment that its receipt exists.

Shard 12 may be scored twice, by an actor that died late or by two drivers. Each attempt writes its own files; the
receipt is created once, and whoever comes second takes the first one's.
"""

import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.data.dataset import write_table
from optirag_core.data.schema import REJECTS, SCORES, require_columns
from optirag_core.errors import ArtifactCorrupt, RunIncomplete
from optirag_core.manifest import file_sha256, seal
from optirag_core.runs.plan import Shard, key_digest
from optirag_core.storage.base import Storage
from optirag_core.storage.local import named


@dataclass(frozen=True)
class Receipt:
    """Proof that a shard's output is whole."""

    shard: int
    scored: int
    rejected: int
    keys: str  # digest of the pairs in both tables
    files: Mapping[str, Mapping[str, Any]]  # path in the run's folder -> sha256, size, rows
    counts: Mapping[str, Any]  # of `totals.counted`

    def to_json(self) -> bytes:
        return json.dumps(seal(asdict(self)), sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Receipt":
        """
        Raises:
            ArtifactCorrupt: it differs from its checksum.
        """
        try:
            sealed = json.loads(text)
            if sealed != seal(sealed):
                raise ValueError
            return cls(**{name: value for name, value in sealed.items() if name != "checksum"})
        except (ValueError, TypeError, AttributeError):
            raise ArtifactCorrupt(
                f"a receipt is damaged: remove it from receipts/ and run again: {text[:80]!r}"
            ) from None


def receipt_file(number: int) -> str:
    return f"receipts/{number:06}.json"


def read_receipt(storage: Storage, folder: str, number: int) -> Receipt | None:
    """The receipt of a shard; None while it is not finished."""
    text = storage.read(f"{folder}/{receipt_file(number)}")
    return None if text is None else Receipt.from_json(text)


def write_attempt(
    storage: Storage, folder: str, shard: Shard, scores: pa.Table, rejects: pa.Table, counts: Mapping[str, Any]
) -> Receipt:
    """Write a shard's output and finish the shard with it, unless it is finished already.

    Args:
        folder: the run's.
        scores: with the columns of `SCORES`.
        rejects: with the columns of `REJECTS`.
        counts: kept in the receipt, JSON values.

    Returns:
        The receipt that counts: this attempt's, or the one that came first.

    Raises:
        RunIncomplete: the tables are not the shard's pairs, each once.
    """
    tables = {
        "scores": require_columns(scores, SCORES, "scores").select(SCORES.names),
        "rejects": require_columns(rejects, REJECTS, "rejects").select(REJECTS.names),
    }
    users, items = ([v for t in tables.values() for v in t[name].to_pylist()] for name in ("user_id", "item_id"))
    keys = key_digest(users, items)
    if keys != shard.keys:
        raise RunIncomplete(f"shard {shard.number}: {shard.pairs} pairs asked, {len(users)} answered, and they differ")
    attempt, files = uuid.uuid4().hex[:12], {}
    with tempfile.TemporaryDirectory(prefix="optirag-") as scratch:
        for kind, table in tables.items():
            file, path = Path(scratch) / kind, f"attempts/{shard.number:06}-{attempt}-{kind}.parquet"
            with named(file):
                write_table(table, file)
            storage.upload(file, f"{folder}/{path}")
            files[path] = {"sha256": file_sha256(file), "size": file.stat().st_size, "rows": len(table)}
    receipt = Receipt(shard.number, len(scores), len(rejects), keys, files, counts)
    return Receipt.from_json(storage.create(f"{folder}/{receipt_file(shard.number)}", receipt.to_json()))
