"""The shards that are left, finished on Ray: what is shown of it, and what is left when a driver has to stop."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks.stubs import StubScore
from optirag_core.config.settings import Settings
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.work import begin
from ray_jobs import run_progress
from ray_jobs.run_progress import RunProgress, finish
from tests.ray_jobs.test_shard_stream import planned_stubs
from tests.runs.small import PARENTS, identity

pytestmark = pytest.mark.ray
TAKEN_OVER = """
import sys, time
from contextlib import closing
import ray
from benchmarks.stubs import StubScore
from optirag_core.config.settings import Settings
from optirag_core.errors import RunOwned
from optirag_core.runs.work import begin
from ray_jobs.run_progress import finish
from tests.ray_jobs.test_shard_stream import planned_stubs
from tests.runs.small import identity
run, plan, folder, stages = planned_stubs(sys.argv[1], StubScore)
settings = Settings(ray={"num_cpus": 2, "object_store_mib": 100})
try:
    with begin(run, identity(plan), plan, folder, lease_s=0.5) as work:
        with closing(finish(work, *stages, settings)) as receipts:
            for receipt in receipts:
                assert ray.is_initialized()
                run.storage.create(f"{run.folder}/owners/000002.json", b'{"pid": 1, "host": "other", "since": "now"}')
                time.sleep(1.0)
                work.add(receipt)
except RunOwned as error:
    print(error, ray.is_initialized())
"""


def test_a_run_is_finished_and_then_starts_nothing(tmp_path):
    run, plan, folder, stages = planned_stubs(str(tmp_path), StubScore)
    for left in ([0, 1, 2, 3], []):
        with begin(run, identity(plan), plan, folder, lease_s=1.0) as work:
            shards = sorted(receipt.shard for receipt in added(work, stages if left else (None, None)))
            manifest = work.commit(parents=PARENTS, max_reject_share=0.0)
        assert shards == left
    assert manifest["metrics"]["scored"] == 24


def added(work, stages):
    for receipt in finish(work, *stages, Settings()):
        work.add(receipt)
        yield receipt


@pytest.mark.thorough
@pytest.mark.slow
def test_a_driver_that_is_taken_over_ends_its_ray(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER, str(tmp_path)], check=False, capture_output=True, text=True, timeout=180
    )

    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "scores/night was taken over by process 1 on other" in finished.stdout
    assert finished.stdout.endswith("this driver was silent False\n")


def test_a_line_in_the_log_is_of_what_this_driver_did(monkeypatch, caplog):
    """40 of 100 pairs were finished before, 20 more in 20 seconds: a pair a second, and 40 seconds for the rest."""
    now = [1000.0]
    monkeypatch.setattr(run_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    progress = RunProgress(100, 40)
    counts = {"rejects": {"unknown_item": 4}, "exits": {"3": 8, "5": 8}}

    with caplog.at_level(logging.INFO, logger="ray_jobs.run_progress"):
        progress.add(Receipt(0, 0, 0, "", {}, {"rejects": {}, "exits": {}}))  # too soon for a line
        now[0] += 20
        progress.add(Receipt(1, 16, 4, "", {}, counts))
    progress.close()

    [line] = caplog.messages
    assert line == "60 of 100 pairs, 1.0 pairs/s, mean exit layer 4.00, 4 rejected, 40 s left"
