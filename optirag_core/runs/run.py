"""A scoring run on its storage, and the one function that takes it from its plan to its commit.

<folder>/run.json                what the run is; another run is refused
<folder>/owners/ beats/          which driver is at it
<folder>/shards/ plan.json       what is asked
<folder>/attempts/ receipts/     what has been answered
<folder>/manifest.json           the run is committed: created once, and all that readers look at
"""

import hashlib
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.artifacts import LATEST
from optirag_core.errors import ArtifactCorrupt, ArtifactError, RunIncomplete, RunMismatch, RunOwned
from optirag_core.manifest import MANIFEST, compose_manifest, file_sha256, manifest_text, parse_manifest
from optirag_core.runs.attempts import Receipt, read_receipt, receipt_file
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.lease import owned
from optirag_core.runs.plan import Shard, ShardPlan
from optirag_core.runs.totals import Totals
from optirag_core.storage.base import Storage

KIND = "scores"
PLAN_FILE = "plan.json"
THREADS = 16
"""Small files are read and written so many at a time: an S3 request takes some 50 ms, whatever its size."""

Execute = Callable[[Sequence[Shard]], Generator[Receipt]]
"""Finishes shards, in any order; `ray_jobs.score` does it on Ray."""

Report = Callable[[Totals], Mapping[str, bytes]]
"""Makes the files that are committed beside the scores: name -> content."""


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
            raise ArtifactCorrupt(f"{self.uri}/{shard.file} differs from the plan: give another scoring.run")
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

    def become_latest(self, manifest: Mapping[str, Any], *, keep_newer: bool) -> None:
        """Point `LATEST` at this committed run.

        Args:
            keep_newer: leave it at a run that was committed later.
        """
        path = f"{KIND}/{LATEST}"
        if not keep_newer or not self._is_newer(self.storage.read(path), manifest["created_at"]):
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


def drive(
    run: Run, identity: RunIdentity, plan: ShardPlan, files: Path, execute: Execute, *, parents: Mapping[str, str],
    lease_s: float, max_reject_share: float, keep_newer: bool = False, report: Report = lambda totals: {},
) -> dict[str, Any]:  # fmt: skip
    """Take a run to its commit, from its beginning or from where it was left.

    Args:
        identity: what the run depends on, the plan among it.
        files: local folder of `plan_shards`.
        execute: finishes the shards that are not finished.
        parents: artifact kind -> digest.
        lease_s: a driver that is silent for so long is taken for dead.
        max_reject_share: above it nothing is committed.
        keep_newer: a run that was committed before does not become the latest again.
        report: what is committed beside the scores.

    Returns:
        The run's manifest.

    Raises:
        RunMismatch: the folder holds a run of other inputs or settings.
        RunOwned: another driver is at it.
        RunIncomplete: a shard is missing, or too many pairs were rejected; nothing is committed.
    """
    identity.claim(run.storage, run.folder)
    manifest = run.manifest()
    if manifest is not None and manifest["metrics"]["run_id"] != identity.run_id:
        raise RunMismatch(f"{run.uri} has been committed with other inputs or settings: give another scoring.run")
    if manifest is None:
        with owned(run.storage, run.folder, lease_s) as lease:
            run.publish(plan, files)
            receipts = run.receipts(plan)
            left = [shard for shard in plan.shards if shard.number not in receipts]
            with closing(execute(left)) as finished:
                for receipt in finished:
                    lease.check()
                    receipts[receipt.shard] = receipt
            totals = _covered(run, plan, receipts, max_reject_share)
            manifest = _commit(run, identity, receipts.values(), totals, parents, report(totals))
    run.become_latest(manifest, keep_newer=keep_newer)
    return manifest


def _covered(run: Run, plan: ShardPlan, receipts: Mapping[int, Receipt], max_reject_share: float) -> Totals:
    """Every pair of every shard is in scores or rejects, once, and these are there."""
    there = set(run.storage.list(f"{run.folder}/attempts"))
    for shard in plan.shards:
        receipt = receipts.get(shard.number)
        if receipt is None:
            missing = sum(other.number not in receipts for other in plan.shards)
            raise RunIncomplete(
                f"{run.uri}: {missing} of {len(plan.shards)} shards have no receipt, the first is {shard.file}; "
                "nothing is committed, run the same command again for the rest"
            )
        if receipt.keys != shard.keys or receipt.scored + receipt.rejected != shard.pairs:
            raise RunIncomplete(
                f"{run.uri}: the receipt of {shard.file} is not for its pairs: give another scoring.run"
            )
        if missing := [path for path in receipt.files if f"{run.folder}/{path}" not in there]:
            raise RunIncomplete(
                f"{run.uri}/{missing[0]} is gone, not its receipt: remove {receipt_file(shard.number)} and run again"
            )
    totals = Totals.of(receipts[shard.number] for shard in plan.shards)
    if totals.rejected > max_reject_share * totals.pairs:
        code, count = totals.rejects.most_common(1)[0]
        raise RunIncomplete(
            f"{totals.rejected} of {totals.pairs} pairs were rejected, {count} of them as {code}; that is more than "
            f"scoring.max_reject_share {max_reject_share:.2%}: nothing is committed, the rejects lie in "
            f"{run.uri}/attempts; mend the input, or raise the share and run again"
        )
    return totals


def _commit(
    run: Run, identity: RunIdentity, receipts: Sequence[Receipt], totals: Totals, parents: Mapping[str, str],
    report: Mapping[str, bytes],
) -> dict[str, Any]:  # fmt: skip
    files = {path: entry for receipt in receipts for path, entry in receipt.files.items()}
    reports = f"reports/{uuid.uuid4().hex[:12]}"  # of this driver: what a manifest lists is never written again
    for name, content in report.items():
        run.storage.write(f"{run.folder}/{reports}/{name}", content)
        files[f"{reports}/{name}"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    metrics = totals.metrics() | {"run_id": identity.run_id}
    manifest = compose_manifest(KIND, run.name, files, config=identity.fields, parents=parents, metrics=metrics)
    text = manifest_text(manifest).encode()
    winner = run.storage.create(f"{run.folder}/{MANIFEST}", text)
    if winner != text:
        raise RunOwned(f"{run.uri} has been committed by another driver meanwhile: its scores count")
    return manifest


def _in_threads(call: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, arguments))
