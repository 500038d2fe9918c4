"""Drivers that die at a named step of a run, that race each other, and that a reader watches: what is lost or double.

    python -m tests.runs.crashes --uri DIR_OR_S3_URI [--reads N]      prints its counts as JSON

A process of its own without torch or Ray: drivers are its forks, and `os._exit` is their death.
"""

import argparse
import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactMissing, OptiragError, RunOwned
from optirag_core.runs import work as work_module
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.plan import Shard
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage import local
from optirag_core.storage.base import Storage, is_local, open_storage
from tests.runs.small import expected_scores, pages, run_small, score_shard, small_requests

CRASHED = 86
REQUESTS = small_requests()
SHARDS = ("000000", "000001", "000003")  # first, middle, last
OF_A_SHARD = {
    "publish shard": ("upload", "/shards/{}"),
    "write scores": ("upload", "/attempts/{}-*-scores"),
    "write rejects": ("upload", "/attempts/{}-*-rejects"),
    "create receipt": ("create", "/receipts/{}"),
}
OF_THE_RUN = {
    "claim run": ("create", "/run.json"),
    "become owner": ("create", "/owners/"),
    "first beat": ("write", "/beats/"),
    "publish plan": ("create", "/plan.json"),
    "write pages": ("write", "/pages/"),
    "create manifest": ("create", "/manifest.json"),
    "move latest": ("write", "scores/LATEST"),
}
STEPS = {f"{name} {shard}": (operation, path.format(shard)) for name, (operation, path) in OF_A_SHARD.items()
         for shard in SHARDS} | OF_THE_RUN  # fmt: skip


class Dying:
    """A storage whose process dies at one step: before it, in the middle of it, or after it."""

    def __init__(self, storage: Storage, operation: str, path: str, moment: str) -> None:
        self._storage = storage
        self._operation, self._parts, self._moment = operation, path.split("*"), moment

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._storage, name)
        if name != self._operation:
            return call

        def dying(*arguments: Any) -> Any:
            path = arguments[1] if name == "upload" else arguments[0]
            if not all(part in path for part in self._parts):
                return call(*arguments)
            if self._moment == "before":
                os._exit(CRASHED)
            if self._moment == "during":  # the content is written under a name on its way
                local._sync = lambda file: os._exit(CRASHED)
            call(*arguments)
            os._exit(CRASHED)

        return dying


def crash_everywhere(uri: str) -> dict[str, Any]:
    """One run per step and moment: it dies there, dies again before its commit, and is resumed."""
    counts, latest = Counter(), ""
    moments = ("before", "during", "after") if is_local(uri) else ("before", "after")
    for number, (name, moment) in enumerate((name, moment) for name in STEPS for moment in moments):
        run = f"crash-{number:03}"
        for death, (step, when) in enumerate(((STEPS[name], moment), (STEPS["create manifest"], "before"))):
            storage = Dying(opened(uri), *step, when)
            fired = forked(lambda storage=storage, run=run: run_small(storage, run, REQUESTS)) == CRASHED
            counts["crashes"] += fired
            counts["not_fired"] += death == 0 and not fired
            committed = (name, moment) == ("create manifest", "after") or name == "move latest"
            counts["early_visible"] += _visible(uri, run) and not committed
            counts["lost_commits"] += committed and not _visible(uri, run)
            if committed and (death or (name, moment) == ("move latest", "after")):
                latest = run  # the driver after a commit finds it and moves LATEST
            counts["early_latest"] += (opened(uri).read("scores/LATEST") or b"").decode() not in (latest, "control")
        _resume(uri, run, counts)
        latest = run
    return dict(counts)


def race(uri: str, rounds: int, *, leases: bool, first: int = 0) -> dict[str, Any]:
    """Two to eight drivers at one run at a time.

    Args:
        leases: False lets all of them score and commit, as if each took the others for dead.
        first: number of the first run.
    """
    counts: Counter[str] = Counter()
    for number in range(first, first + rounds):
        run, drivers = f"race-{leases}-{number:03}", 2 + number % 7
        notes, note = os.pipe()
        one = partial(_race_one, uri, run, time.time() + 0.3, note, leases)
        children = [_spawn(one) for _ in range(drivers)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(note)
        with os.fdopen(notes) as stream:
            spans = [json.loads(line) for line in stream]
        counts["races"] += 1
        counts["drivers"] += drivers
        counts["overlapping"] += max(begin for begin, _, _ in spans) < min(end for _, end, _ in spans)
        counts["commits"] += sum(outcome == "committed" for _, _, outcome in spans)
        counts["refused"] += sum(outcome == "owned" for _, _, outcome in spans)
        counts["hung"] += sum(code != 0 for code in codes)  # SIGALRM ends what hangs
        _check(uri, run, counts)
    counts["double_commits"] = counts["commits"] - counts["races"]
    return dict(counts)


def _race_one(uri: str, run: str, start: float, note: int, leases: bool) -> None:
    if not leases:
        work_module.owned = lambda *_: nullcontext(SimpleNamespace(check=lambda: None))
    time.sleep(max(0.0, start - time.time()))
    begin, outcome = time.time(), "found committed"

    def slowly(run: Run, shards: Sequence[Shard]) -> Iterator[Receipt]:
        for shard in shards:
            time.sleep(0.1)
            yield score_shard(run, shard)

    def noting(*arguments: Any, **figures: Any) -> dict[str, bytes]:
        nonlocal outcome
        outcome = "committed"  # or an exception: who finds a commit makes no page
        return pages(*arguments, **figures)

    try:
        run_small(opened(uri), run, REQUESTS, execute=slowly, pages=noting)
    except RunOwned:
        outcome = "owned"
    os.write(note, (json.dumps([begin, time.time(), outcome]) + "\n").encode())


@contextmanager
def watched(uri: str) -> Iterator[SimpleNamespace]:
    """A reader polls the newest run while the body runs.

    Yields:
        `reads()` so far, and after the body its `counts`.
    """
    results, result = os.pipe()
    shared = mmap.mmap(-1, 16)  # reads, and whether to stop
    reader = _spawn(lambda: _poll(uri, shared, result), limit_s=900)
    watch = SimpleNamespace(reads=lambda: int.from_bytes(shared[:8], "little"), counts={})
    yield watch
    shared[8] = 1
    os.waitpid(reader, 0)
    os.close(result)
    with os.fdopen(results) as stream:
        watch.counts = json.load(stream)


def _poll(uri: str, shared: mmap.mmap, result: int) -> None:
    expected, counts = set(expected_scores(REQUESTS)), Counter()
    while not shared[8]:
        counts["reads"] += 1
        shared[:8] = counts["reads"].to_bytes(8, "little")
        time.sleep(0.002 if is_local(uri) else 0.05)  # the drivers want a share of the processors, too
        try:
            table = read_scores(f"{uri}/scores", storage=SETTINGS)
        except ArtifactMissing:
            counts["reads_before_the_first_commit"] += 1
            continue
        pairs = list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
        counts["partial_reads"] += len(pairs) != len(expected) or set(pairs) != expected
    os.write(result, json.dumps({"partial_reads": 0} | counts).encode())


def _resume(uri: str, run: str, counts: Counter[str]) -> None:
    started = time.monotonic()
    run_small(opened(uri), run, REQUESTS)
    counts["hung"] += time.monotonic() - started > 10
    _check(uri, run, counts)


def _check(uri: str, run: str, counts: Counter[str]) -> None:
    rows = read_scores(f"{uri}/scores/{run}", storage=SETTINGS).to_pylist()
    rejects = read_scores(f"{uri}/scores/{run}", kind="rejects", storage=SETTINGS).to_pylist()
    found = {(row["user_id"], row["item_id"]): row["score"] for row in rows}
    expected = expected_scores(REQUESTS)
    counts["lost"] += len(expected.keys() - found.keys())
    counts["duplicated"] += len(rows) - len(found)
    counts["wrong"] += sum(abs(found[key] - score) > 1e-6 for key, score in expected.items() if key in found)
    counts["wrong"] += len(rows) + len(rejects) != sum(map(len, REQUESTS["item_ids"].to_pylist()))


def _visible(uri: str, run: str) -> bool:
    try:
        read_scores(f"{uri}/scores/{run}", storage=SETTINGS)
    except ArtifactMissing:
        return False
    return True


def forked(work: Callable[[], object]) -> int:
    """Exit code of a fork that does the work: 0, CRASHED, 2 for an `OptiragError`, else 1."""
    return os.waitstatus_to_exitcode(os.waitpid(_spawn(work), 0)[1])


def _spawn(work: Callable[[], object], limit_s: int = 120) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(limit_s)  # a driver that hangs is no driver that finished
    try:
        work()
        os._exit(0)
    except OptiragError:
        traceback.print_exc()
        os._exit(2)
    except BaseException:  # noqa: BLE001 - the fork must not run the parent's code
        traceback.print_exc()
        os._exit(1)


SETTINGS = StorageSettings(connect_timeout_s=5, read_timeout_s=5)


def opened(uri: str) -> Storage:
    return open_storage(uri, SETTINGS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", required=True)
    parser.add_argument("--reads", type=int, default=0)
    parser.add_argument("--races", type=int, default=20)
    arguments = parser.parse_args()
    control = forked(lambda: run_small(opened(arguments.uri), "control", REQUESTS))
    with watched(arguments.uri) as reader:
        crashes = crash_everywhere(arguments.uri)
        races = race(arguments.uri, arguments.races, leases=True)
        without = race(arguments.uri, arguments.races, leases=False)
        while reader.reads() < arguments.reads:  # there is always something going on while it reads
            race(arguments.uri, 1, leases=False, first=1000 + reader.reads())
    counts = {"crashes": crashes, "races": races, "races_without_leases": without, "reader": reader.counts}
    json.dump({"control_exit_code": control, **counts}, sys.stdout)


if __name__ == "__main__":
    main()
