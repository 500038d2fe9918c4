"""Drivers that die at any step, or race: every pair exactly once, nothing visible too early, nothing hangs."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
READS = 10_000
NEVER = ("not_fired", "lost", "duplicated", "wrong", "early_visible", "early_latest", "lost_commits", "hung")


def crashes(uri: str, *options: str) -> dict:
    command = [sys.executable, "-m", "tests.runs.crashes", "--uri", uri, *options]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout)


def check(counts: dict, reliability: dict, place: str, races: int) -> None:
    crashed, reader = counts["crashes"], counts["reader"]
    reliability[f"driver exits at a commit step, {place}"] = {"tried": crashed["crashes"], **crashed}
    reliability[f"a reader during all of that, {place}"] = {"tried": reader["reads"], **reader}
    assert counts["control_exit_code"] == 0
    assert {name: crashed[name] for name in NEVER} == dict.fromkeys(NEVER, 0)
    assert reader["partial_reads"] == 0
    for name in ("races", "races_without_leases"):
        raced = counts[name]
        reliability[f"drivers race ({name}), {place}"] = {"tried": raced["races"], **raced}
        assert raced["overlapping"] >= 0.9 * races  # on a busy machine a driver may start when the others have ended
        assert (raced["commits"], raced["double_commits"]) == (races, 0)
        assert (raced["lost"], raced["duplicated"], raced["wrong"], raced["hung"]) == (0, 0, 0, 0)


def test_a_driver_may_die_at_any_step_on_a_local_disk(tmp_path, reliability):
    counts = crashes(str(tmp_path), "--reads", str(READS))

    assert counts["crashes"]["crashes"] == 110  # 57 steps and moments, and again before a commit that is still to come
    assert counts["reader"]["reads"] >= READS
    check(counts, reliability, "local", races=20)


@pytest.mark.s3
@pytest.mark.thorough
def test_a_driver_may_die_at_any_step_on_s3(s3_bucket, reliability):
    counts = crashes(s3_bucket, "--reads", "100", "--races", "7")

    assert counts["crashes"]["crashes"] == 73
    check(counts, reliability, "S3", races=7)
