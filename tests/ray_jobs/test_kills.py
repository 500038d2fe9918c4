"""SIGKILL and SIGSTOP of the job's processes: what is there in the end is what an undisturbed run gives, to the byte.

The full counts run with `--reliability FILE`; otherwise fewer of the same.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage.local import LocalStorage
from ray_jobs.score import score
from tests.finished_run import changed, driver

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def settings(own_workspace):
    """A shard per user or two, so that a run has many moments."""
    return changed(own_workspace, run={"pairs_per_shard": 1, "lease_s": 2.0, "stall_timeout_s": 120.0})


@pytest.fixture(scope="module")
def undisturbed(settings):
    """The no-fault control."""
    return content(settings, score(changed(settings, run={"name": "undisturbed"}))["version"])


@pytest.fixture(scope="module", autouse=True)
def reader(settings, undisturbed, reliability):
    """Reads the newest run from the first commit on until all kills are over."""
    counts, stop = {"tried": 0, "partial": 0}, threading.Event()

    def read():
        while not stop.wait(1.0):  # some 270 files each time
            scores = read_scores(f"{settings.workspace}/scores").drop_columns("scored_at")
            counts["tried"] += 1
            counts["partial"] += not scores.equals(undisturbed[0])

    thread = threading.Thread(target=read)
    thread.start()
    yield
    stop.set()
    thread.join()
    reliability["a reader during all kills"] = counts
    assert counts["partial"] == 0 < counts["tried"]


@pytest.fixture
def many(request) -> Callable[[int, int], int]:
    """How many faults: all of them in a full count, some of them otherwise."""
    full = request.config.getoption("--reliability") is not None
    return lambda all_of_them, some: all_of_them if full else some


def repeated(settings, run):
    """Attempts of a committed run that did not count."""
    return len(Run(LocalStorage(Path(settings.workspace)), run).leftovers()) / 2  # scores and rejects


def content(settings, run):
    """Scores and rejects of a run, without the time of scoring."""
    uri = f"{settings.workspace}/scores/{run}"
    return read_scores(uri).drop_columns("scored_at"), read_scores(uri, kind="rejects")


def receipts(settings, run):
    with suppress(FileNotFoundError):
        return len(os.listdir(f"{settings.workspace}/scores/{run}/receipts"))  # noqa: PTH208 - cheap, often
    return 0


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT_S} s for {what}"
        time.sleep(0.02)


def scorers():
    return [p for p in psutil.process_iter(["cmdline"]) if "ScorePrompts" in " ".join(p.info["cmdline"] or [])]


def resumed(settings, folder, run, num_cpus):
    """Whether the same command ends well, in time."""
    process = driver(settings, folder, run, num_cpus)
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_all(process.pid)
        return False
    assert code == 0, (folder / f"{run}.log").read_text()[-3000:]
    return True


def kill_all(pid):
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return len(processes)


def figures(settings, runs, undisturbed, tried, hung):
    """What runs lost or doubled against the undisturbed one."""
    expected = set(zip(*(undisturbed[0][name].to_pylist() for name in ("user_id", "item_id")), strict=True))
    lost = duplicated = different = 0
    for run in runs:
        scores, rejects = content(settings, run)
        found = list(zip(*(scores[name].to_pylist() for name in ("user_id", "item_id")), strict=True))
        lost += len(expected - set(found))
        duplicated += len(found) - len(set(found))
        different += not (scores.equals(undisturbed[0]) and rejects.equals(undisturbed[1]))
    return {"tried": tried, "lost": lost, "duplicated": duplicated, "different": different, "hung": hung}


@pytest.mark.thorough
def test_killed_scorers_are_replaced(settings, undisturbed, reliability):
    killed = []

    def kill_five():
        for number in range(5):
            wait_for(lambda: receipts(settings, "actors") >= 8 * number + 3 and scorers(), "a scorer")  # noqa: B023
            victim = next(p for p in scorers() if p.pid not in killed)
            victim.kill()
            killed.append(victim.pid)

    killer = threading.Thread(target=kill_five)
    killer.start()
    score(changed(settings, run={"name": "actors"}))
    killer.join()

    counts = figures(settings, ["actors"], undisturbed, len(set(killed)), hung=0)  # hung, it would have raised
    reliability["SIGKILL of a scorer actor"] = counts
    assert repeated(settings, "actors") <= 5
    assert counts == {"tried": 5, "lost": 0, "duplicated": 0, "different": 0, "hung": 0}


@pytest.mark.parametrize("num_cpus", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_a_killed_driver_is_resumed(settings, undisturbed, tmp_path, reliability, many, num_cpus):
    runs = [f"driver-{num_cpus}-{number}" for number in range(many(5, 1))]
    after_receipts = hung = 0
    for number, run in enumerate(runs):
        process, enough = driver(settings, tmp_path, run, num_cpus), 0 if number % 2 else 5 * number + 1
        plan = f"{settings.workspace}/scores/{run}/plan.json"
        wait_for(lambda: os.path.exists(plan) and receipts(settings, run) >= enough, "receipts")  # noqa: B023, PTH110
        process.kill()
        process.wait()
        after_receipts += receipts(settings, run) > 0
        assert not os.path.exists(f"{settings.workspace}/scores/{run}/manifest.json")  # noqa: PTH110 - the fault fired
        hung += not resumed(settings, tmp_path, run, num_cpus)
        assert repeated(settings, run) <= 2  # what was being scored, and one more

    counts = figures(settings, runs, undisturbed, len(runs), hung)
    reliability[f"SIGKILL of the driver, num_cpus {num_cpus}"] = counts | {"after_the_first_receipt": after_receipts}
    assert after_receipts >= len(runs) / 2
    assert counts == {"tried": len(runs), "lost": 0, "duplicated": 0, "different": 0, "hung": 0}


@pytest.mark.thorough
def test_all_processes_killed_at_once(settings, undisturbed, tmp_path, reliability, many):
    runs = [f"all-{number}" for number in range(many(3, 1))]
    hung = 0
    for number, run in enumerate(runs):
        process = driver(settings, tmp_path, run, 2)
        wait_for(lambda: receipts(settings, run) >= 10 * number + 2, "receipts")  # noqa: B023
        assert kill_all(process.pid) > 5  # driver, raylet, GCS, workers
        process.wait()
        hung += not resumed(settings, tmp_path, run, 2)

    counts = figures(settings, runs, undisturbed, len(runs), hung)
    reliability["SIGKILL of all Ray processes"] = counts
    assert counts == {"tried": len(runs), "lost": 0, "duplicated": 0, "different": 0, "hung": 0}


@pytest.mark.thorough
def test_sigterm_leaves_a_run_that_is_free_at_once(settings, undisturbed, tmp_path):
    process = driver(changed(settings, run={"lease_s": 60.0}), tmp_path, "term", 2)
    wait_for(lambda: receipts(settings, "term") >= 2, "receipts")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0

    started = time.monotonic()
    assert resumed(changed(settings, run={"lease_s": 60.0}), tmp_path, "term", 2)
    assert time.monotonic() - started < 60
    assert content(settings, "term")[0].equals(undisturbed[0])


@pytest.mark.thorough
def test_a_stalled_scorer_ends_the_run_by_name(settings, undisturbed, tmp_path, reliability):
    process = driver(changed(settings, run={"stall_timeout_s": 25.0}), tmp_path, "stalled", 2)
    wait_for(lambda: receipts(settings, "stalled") >= 3, "receipts")
    stopped = [p for p in scorers() if psutil.Process(process.pid) in p.parents()]
    for scorer in stopped:
        scorer.suspend()

    started = time.monotonic()
    code, seconds = process.wait(TIMEOUT_S), time.monotonic() - started

    log = (tmp_path / "stalled.log").read_text()
    reliability["SIGSTOP of a scorer actor"] = {
        "tried": len(stopped),
        "hung": int(seconds > 60),
        "seconds": round(seconds, 1),
    }
    assert len(stopped) == 1
    assert code == 2
    assert "RunStalled: no shard was finished for 25 s: stage `score`" in log  # stopped at a shard, or between two
    assert f"in process {stopped[0].pid} on" in log
    assert seconds < 60
    score(changed(settings, run={"name": "stalled"}))
    assert content(settings, "stalled")[0].equals(undisturbed[0])
