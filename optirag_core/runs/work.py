"""One driver's work on a scoring run: the shards that are left, the lease while it works, and the commit.

with begin(run, identity, plan, files, lease_s=60.0) as work:
    for receipt in stream(work.left):
        work.add(receipt)
    manifest = work.commit(pages, parents=digests, max_reject_share=0.01)
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optirag_core.artifacts import LATEST
from optirag_core.errors import RunIncomplete, RunMismatch, RunOwned
from optirag_core.manifest import MANIFEST, compose_manifest, manifest_text
from optirag_core.runs.attempts import Receipt, receipt_file
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.lease import Lease, owned
from optirag_core.runs.plan import ShardPlan
from optirag_core.runs.run import KIND, Run
from optirag_core.runs.totals import Totals


@contextmanager
def begin(run: Run, identity: RunIdentity, plan: ShardPlan, files: Path, *, lease_s: float) -> Iterator["Work"]:
    """Begin a run, or go on with it, as its only driver while the body runs.

    A run that is committed already needs no driver: then there is no lease, and no shard is left.

    Args:
        identity: what the run depends on, the plan among it.
        files: local folder of `plan_shards`.
        lease_s: a driver that shows no sign of life for this many seconds is taken for dead.

    Raises:
        RunMismatch: the folder holds a run of other inputs or settings.
        RunOwned: another driver is at it.
    """
    identity.claim(run.storage, run.folder)
    if (manifest := _committed(run, identity)) is not None:
        yield Work(run, identity, plan, manifest=manifest)
        return
    with owned(run.storage, run.folder, lease_s) as lease:
        if (manifest := _committed(run, identity)) is not None:  # by the driver that held the lease until now
            yield Work(run, identity, plan, manifest=manifest)
            return
        run.publish(plan, files)
        yield Work(run, identity, plan, receipts=run.receipts(plan), lease=lease)


def _committed(run: Run, identity: RunIdentity) -> dict[str, Any] | None:
    """The run's manifest; None before the commit."""
    manifest = run.manifest()
    if manifest is not None and manifest["metrics"]["run_id"] != identity.run_id:
        raise RunMismatch(f"{run.uri} has been committed with other inputs or settings: give another run.name")
    return manifest


class Work:
    """What one driver does at a run; `begin` makes it.

    Attributes:
        name: of the run.
        left: the shards that had no receipt when the work began, in order; none of a committed run.
        pairs: of the whole run.
        num_shards: of the whole run.
        resumed: pairs of the shards that earlier drivers finished.
    """

    def __init__(
        self, run: Run, identity: RunIdentity, plan: ShardPlan, *, receipts: Mapping[int, Receipt] | None = None,
        lease: Lease | None = None, manifest: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._run, self._identity, self._plan = run, identity, plan
        self._receipts = dict(receipts or {})
        self._lease, self._manifest = lease, manifest
        self._began_s = time.monotonic()
        self.name = run.name
        open_shards = () if manifest else plan.shards
        self.left = tuple(shard for shard in open_shards if shard.number not in self._receipts)
        self.pairs, self.num_shards = plan.pairs, len(plan.shards)
        self.resumed = plan.pairs - sum(shard.pairs for shard in self.left)

    @property
    def committed(self) -> bool:
        """Whether nothing is left to do, not even the commit."""
        return self._manifest is not None

    def add(self, receipt: Receipt) -> None:
        """Note that a shard is finished.

        Raises:
            RunOwned: this driver no longer holds the run.
        """
        self._check_lease()
        self._receipts[receipt.shard] = receipt

    def commit(
        self, pages: Callable[..., Mapping[str, bytes]] | None = None, *, parents: Mapping[str, str],
        max_reject_share: float, keep_newer: bool = False, check: Callable[[str], None] | None = None,
        pointer: str = LATEST,
    ) -> dict[str, Any]:  # fmt: skip
        """Show the scores of all shards to readers, at once, as the newest run; a committed run stays as it is.

        Args:
            pages: `pages(totals, seconds=..., resumed=...)` makes the files that are committed beside the scores,
                name -> content, from the sums over all shards, the seconds since this work began, and the pairs that
                had been finished by then. A committed run has its pages.
            parents: artifact kind -> digest.
            max_reject_share: of all pairs; with more rejects nothing is committed.
            keep_newer: where another run was committed after this one, that one stays the newest.
            check: as for `Run.become_latest`: what it raises leaves the run committed, and not the newest.
            pointer: what then names the run as the newest.

        Returns:
            The run's manifest.

        Raises:
            RunIncomplete: a shard is missing, or too many pairs were rejected; nothing is committed.
            RunOwned: this driver no longer holds the run, or another one has committed it.
        """
        if self._manifest is None:
            self._check_lease()
            receipts = self._covering()
            totals = Totals.of(receipts)
            self._check_rejects(totals, max_reject_share)
            seconds = time.monotonic() - self._began_s
            made = pages(totals, seconds=seconds, resumed=self.resumed) if pages else {}
            self._manifest = self._create_manifest(receipts, totals, parents, made)
        self._run.become_latest(self._manifest, keep_newer=keep_newer, check=check, pointer=pointer)
        return self._manifest

    def _check_lease(self) -> None:
        assert self._lease is not None, "a committed run takes no receipt: its `left` is empty"
        self._lease.check()

    def _covering(self) -> list[Receipt]:
        """The receipt of every shard; all together every pair is in scores or rejects, once, and these are there."""
        run, there = self._run, set(self._run.storage.list(f"{self._run.folder}/attempts"))
        for shard in self._plan.shards:
            receipt = self._receipts.get(shard.number)
            if receipt is None:
                missing = sum(other.number not in self._receipts for other in self._plan.shards)
                raise RunIncomplete(
                    f"{run.uri}: {missing} of {len(self._plan.shards)} shards have no receipt, the first is "
                    f"{shard.file}; nothing is committed, run the same command again for the rest"
                )
            if receipt.keys != shard.keys or receipt.scored + receipt.rejected != shard.pairs:
                raise RunIncomplete(
                    f"{run.uri}: the receipt of {shard.file} is not for its pairs: give another run.name"
                )
            if gone := [path for path in receipt.files if f"{run.folder}/{path}" not in there]:
                raise RunIncomplete(
                    f"{run.uri}/{gone[0]} is gone, not its receipt: remove {receipt_file(shard.number)} and run again"
                )
        return [self._receipts[shard.number] for shard in self._plan.shards]

    def _check_rejects(self, totals: Totals, max_reject_share: float) -> None:
        if totals.rejected > max_reject_share * totals.pairs:
            code, count = totals.rejects.most_common(1)[0]
            raise RunIncomplete(
                f"{totals.rejected} of {totals.pairs} pairs were rejected, {count} of them as {code}; that is more "
                f"than run.max_reject_share {max_reject_share:.2%}: nothing is committed, the rejects lie in "
                f"{self._run.uri}/attempts; mend the input, or raise the share and run again"
            )

    def _create_manifest(
        self, receipts: Sequence[Receipt], totals: Totals, parents: Mapping[str, str], pages: Mapping[str, bytes]
    ) -> dict[str, Any]:
        run, identity = self._run, self._identity
        files = {path: entry for receipt in receipts for path, entry in receipt.files.items()}
        folder = f"pages/{uuid.uuid4().hex[:12]}"  # of this driver: what a manifest lists is never written again
        for name, content in pages.items():
            run.storage.write(f"{run.folder}/{folder}/{name}", content)
            files[f"{folder}/{name}"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        metrics = totals.metrics() | {"run_id": identity.run_id}
        manifest = compose_manifest(KIND, run.name, files, config=identity.fields, parents=parents, metrics=metrics)
        text = manifest_text(manifest).encode()
        if run.storage.create(f"{run.folder}/{MANIFEST}", text) != text:
            raise RunOwned(f"{run.uri} has been committed by another driver meanwhile: its scores count")
        return manifest
