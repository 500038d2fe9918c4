"""A scoring run on its storage.

<folder>/run.json                what the run is; another run is refused
<folder>/owners/ beats/          which driver is at it
<folder>/shards/ plan.json       what is asked
<folder>/attempts/ receipts/     what has been answered
<folder>/manifest.json           the run is committed: created once, and all that readers look at
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.artifacts import LATEST
from optirag_core.errors import ArtifactCorrupt, ArtifactError, RunIncomplete
from optirag_core.manifest import MANIFEST, file_sha256, parse_manifest
from optirag_core.runs.attempts import Receipt, read_receipt, receipt_file
from optirag_core.runs.plan import Shard, ShardPlan
from optirag_core.storage.base import Storage

KIND = "scores"
PLAN_FILE = "plan.json"
THREADS = 16
"""This many small files are read or written at a time: an S3 request takes some 50 ms, whatever its size."""


@dataclass(frozen=True)
class Run:
    """`scores/<name>` of a workspace."""

    storage: Storage
    name: str

    @property
    def folder(self) -> str:
        return f"{KIND}/{self.name}"

    @property
    def uri(self) -> str:
        return f"{self.storage.uri}/{self.folder}"

    def manifest(self) -> dict[str, Any] | None:
        """What was committed; None before.

        Raises:
            ArtifactCorrupt: it is damaged.
        """
        text = self.storage.read(f"{self.folder}/{MANIFEST}")
        return None if text is None else parse_manifest(text, f"{self.uri}/{MANIFEST}")

    def publish(self, plan: ShardPlan, files: Path) -> None:
        """Put the shards there, and the plan behind them.

        Args:
            files: local folder of `plan_shards`.
        """
        if self.storage.exists(f"{self.folder}/{PLAN_FILE}"):
            return
        _in_threads(
            lambda shard: self.storage.upload(files / Path(shard.file).name, f"{self.folder}/{shard.file}"), plan.shards
        )
        self.storage.create(f"{self.folder}/{PLAN_FILE}", plan.to_json())

    def plan(self) -> ShardPlan:
        """The published plan."""
        text = self.storage.read(f"{self.folder}/{PLAN_FILE}")
        if text is None:
            raise RunIncomplete(f"{self.uri} has no plan yet")
        return ShardPlan.from_json(text)

    def requests(self, shard: Shard, scratch: Path) -> pa.Table:
        """The requests of a shard.

        Args:
            scratch: local folder for the file on its way.

        Raises:
            ArtifactCorrupt: its file is not the planned one.
        """
        file = scratch / Path(shard.file).name
        self.storage.download(f"{self.folder}/{shard.file}", file)
        if file_sha256(file) != shard.sha256:
            raise ArtifactCorrupt(f"{self.uri}/{shard.file} differs from the plan: give another run.name")
        table = pq.read_table(file, page_checksum_verification=True)
        file.unlink()
        return table

    def receipts(self, plan: ShardPlan) -> dict[int, Receipt]:
        """Of the shards that are finished, by number."""
        found = set(self.storage.list(f"{self.folder}/receipts"))
        numbers = [shard.number for shard in plan.shards if f"{self.folder}/{receipt_file(shard.number)}" in found]
        receipts = _in_threads(lambda number: read_receipt(self.storage, self.folder, number), numbers)
        return {receipt.shard: receipt for receipt in receipts if receipt is not None}

    def leftovers(self) -> list[str]:
        """Attempts that the committed run does not use, as paths in the storage; none before the commit."""
        if (manifest := self.manifest()) is None:
            return []
        used = {f"{self.folder}/{path}" for path in manifest["files"]}
        return [path for path in self.storage.list(f"{self.folder}/attempts") if path not in used]

    def become_latest(
        self, manifest: Mapping[str, Any], *, keep_newer: bool, check: Callable[[str], None] | None = None,
        pointer: str = LATEST,
    ) -> None:  # fmt: skip
        """Point `LATEST`, or another pointer, at this committed run.

        Args:
            keep_newer: leave it at a run that was committed later.
            check: is given the name of the run that readers have got until now, where it is another one and still
                there; what it raises leaves the pointer as it is.
        """
        path = f"{KIND}/{pointer}"
        latest = self.storage.read(path)
        if keep_newer and self._is_newer(latest, manifest["created_at"]):
            return
        before = None if latest is None else Run(self.storage, latest.decode(errors="replace").strip())
        if check and before and before.name != self.name and self.storage.exists(f"{before.folder}/{MANIFEST}"):
            check(before.name)
        self.storage.write(path, self.name.encode())

    def _is_newer(self, latest: bytes | None, created_at: str) -> bool:
        """Whether the run that `LATEST` names was committed after this time."""
        if latest is None:
            return False
        try:
            other = Run(self.storage, latest.decode(errors="replace").strip()).manifest()
        except ArtifactError:  # damaged, or of another version of OptiRAG: it must not keep this run back
            return False
        return other is not None and other["created_at"] > created_at


def _in_threads(call: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, arguments))
