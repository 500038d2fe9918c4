"""Drivers that die at a named step of a run, that race each other, and that a reader watches: what is lost or double.

    python -m tests.runs.crashes --uri DIR_OR_S3_URI [--reads N]      prints its counts as JSON

A process of its own without torch or Ray: drivers are its forks, and `os._exit` is their death.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optirag_core.config import StorageSettings
from optirag_core.errors import ArtifactMissing, OptiragError, RunOwned
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage import local
from optirag_core.storage.base import Storage, is_local, open_storage
from tests.runs.small import expected_scores, run_small, score_shard, small_requests

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
    "write report": ("write", "/reports/"),
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
    counts: Counter[str] = Counter()
    moments = ("before", "during", "after") if is_local(uri) else ("before", "after")
    for number, (name, moment) in enumerate((name, moment) for name in STEPS for moment in moments):
        run = f"crash-{number:03}"
        for death, (step, when) in enumerate(((STEPS[name], moment), (STEPS["create manifest"], "before"))):
            storage = Dying(opened(uri), *step, when)
            fired = forked(lambda storage=storage, run=run: run_small(storage, run, REQUESTS)) == CRASHED
            counts["crashes"] += fired
            counts["not_fired"] += death == 0 and not fired
            committed = Run(opened(uri), run).manifest() is not None
            counts["early_visible"] += not committed and _visible(uri, run)
        _resume(uri, run, counts)
    return dict(counts)


def race(uri: str, rounds: int) -> dict[str, Any]:
    """Two to eight drivers at one run at a time."""
    counts: Counter[str] = Counter()
    for number in range(rounds):
        run, drivers = f"race-{number:03}", 2 + number % 7
        start = time.time() + 0.1
        notes, note = os.pipe()
        children = [
            _spawn(lambda start=start, run=run, note=note: _race_one(uri, run, start, note)) for _ in range(drivers)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(note)
        with os.fdopen(notes) as stream:
            spans = [json.loads(line) for line in stream]
        counts["races"] += 1
        counts["drivers"] += drivers
        counts["overlapping"] += max(begin for begin, _, _ in spans) < min(end for _, end, _ in spans)
        counts["commits"] += sum(outcome == "committed" for _, _, outcome in spans)
        counts["refused"] += sum(outcome == "owned" for _, _, outcome in spans)
        counts["failed"] += sum(code != 0 for code in codes)
        _check(uri, run, counts)
    counts["double_commits"] = counts["commits"] - counts["races"]
    return dict(counts)


def _race_one(uri: str, run: str, start: float, note: int) -> None:
    time.sleep(max(0.0, start - time.time()))
    begin, outcome = time.time(), "committed"

    def slowly(run: Run) -> Callable:
        def execute(shards: Any) -> Iterator:
            for shard in shards:
                time.sleep(0.1)
                yield score_shard(run, shard)

        return execute

    try:
        run_small(opened(uri), run, REQUESTS, execute=slowly)
    except RunOwned:
        outcome = "owned"
    os.write(note, (json.dumps([begin, time.time(), outcome]) + "\n").encode())


def watched(uri: str, reads: int, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work while a reader polls the newest run; the reader stops after the work and so many reads."""
    results, result = os.pipe()
    stop = Path(f"/tmp/optirag-reader-{os.getpid()}")
    reader = _spawn(lambda: _poll(uri, reads, stop, result), limit_s=900)
    counts = work()
    stop.touch()
    os.waitpid(reader, 0)
    stop.unlink()
    os.close(result)
    with os.fdopen(results) as stream:
        return counts | json.load(stream)


def _poll(uri: str, reads: int, stop: Path, result: int) -> None:
    expected, counts = set(expected_scores(REQUESTS)), Counter()
    while counts["reads"] < reads or not stop.exists():
        counts["reads"] += 1
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
    counts["slow_resumes"] += time.monotonic() - started > 10
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
    crashes = watched(arguments.uri, arguments.reads, lambda: crash_everywhere(arguments.uri))
    races = race(arguments.uri, arguments.races)
    json.dump({"control_exit_code": control, "crashes": crashes, "races": races}, sys.stdout)


if __name__ == "__main__":
    main()
