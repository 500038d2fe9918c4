"""The benchmark behind capacity plans runs on tiny sizes; its figures are judged where they are measured."""

import json
import sys

import pytest

from benchmarks import capacity, driver_work, killed_scorer, simulated_runs
from benchmarks.simulated_runs import Sweep


def test_a_plan_counts_every_pair(tmp_path):
    file = tmp_path / "requests" / "requests.parquet"
    driver_work.write_requests(file, 120, 5)

    figures = driver_work._plan(file, tmp_path, 100)

    assert (figures["pairs"], figures["shards"]) == (600, 6)
    assert figures["seconds"].keys() == {"read and verify", "cut and write shards", "plan.json and digest"}
    assert figures["request_bytes_per_pair"] == file.stat().st_size / 600


def test_every_receipt_is_kept_and_committed(tmp_path):
    figures = driver_work._receipts(7, tmp_path)

    assert figures["committed_pairs"] == figures["pairs"] == 70_000
    assert set(figures["seconds"]) == {"publish", "take over", "keep receipts", "commit", "read the manifest"}


def test_a_shards_files_are_weighed():
    figures = driver_work.measured_sizes(40, 5)

    assert figures["pairs"] == 200
    assert figures["score_bytes_per_pair"] > 4  # a float32 that is unlike the others
    assert 500 < figures["receipt_bytes"] < 2000


def test_the_killed_scorers_shard_is_the_lowest_that_came_late():
    """At 10 s scorers were at shards 4, 5 and 6; the one of 5 was killed, and 8 waited behind it."""
    times = {4: 11.0, 6: 11.2, 7: 13.0, 9: 13.2, 5: 19.0, 8: 21.0}
    assert killed_scorer._held_back(times, 10.0 + 2.0) == 5


def test_a_sweep_holds_the_rules_choice_and_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("simpy", reason="simpy simulates runs")
    pytest.importorskip("matplotlib")
    tiny = Sweep({16: (30.0, 90.0)}, hours=0.2, num_shards=2000, num_runs=(2, 3))
    monkeypatch.setattr(capacity, "SWEEP", tiny)
    monkeypatch.setattr(capacity, "DISTRIBUTION", tiny)
    out = tmp_path / "capacity.json"
    monkeypatch.setattr(sys, "argv", ["capacity", "--out", str(out), "--parts", "simulated", "distribution"])

    capacity.main()

    found = json.loads(out.read_text())
    for name in simulated_runs.NIGHTS:
        rows = [row for row in found["simulated"]["rows"] if row["night"] == name]
        assert sum(row["is_the_rule"] for row in rows) == 1
        assert len(rows) == 3
        assert all(row["p50_s"] <= row["p95_s"] and row["runs"] in (2, 3) for row in rows)
    assert [row["retries_move"] for row in found["distribution"]["rows"]] == [False] * 2 + 2 * ([False, True] * 2)
    for part in ("simulated", "distribution"):
        assert (tmp_path / f"capacity-{part}.png").read_bytes().startswith(b"\x89PNG")
