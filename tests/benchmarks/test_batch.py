"""The benchmark of the batch job runs end to end on tiny sizes; its figures are judged where they are measured."""

import json
import os
import sys

import pytest

from benchmarks import batch, stub_job
from benchmarks.stubs import stub_run
from optirag_core.runs.plan import Shard, ShardPlan
from ray_jobs.session import ray_session

pytestmark = pytest.mark.ray
TINY = batch.PLANS["tiny"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "batch.json"
    with pytest.MonkeyPatch.context() as patch, ray_session(stub_job.RAY):
        patch.setattr(sys, "argv", ["batch", "--plan", "tiny", "--out", str(path)])
        batch.main()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(path.read_text())


def test_every_part_says_where_it_comes_from(result):
    assert result.keys() == set(batch.PARTS)
    for part in result.values():
        assert {"command", "hardware", "commit", "date", "load_before_and_after"} <= part.keys()


def test_the_job_and_the_bare_engine_score_the_same_pairs(result):
    [row] = result["overhead"]["rows"]

    assert row["pairs"] >= TINY.overhead.users * TINY.overhead.candidates[0]
    assert row["shards"] > 1
    assert len(row["jobs"]) == len(row["ratios"]) == len(row["bare_seconds_per_shard"]) - 1
    for job in row["jobs"]:
        assert (job["committed_pairs"], job["rejected_pairs"]) == (row["pairs"], 0)
        assert len(job["receipt_seconds"]) == row["shards"] - 1
    assert {"ratio", "whole_ratio", "build_seconds", "tokens"} <= row.keys()


def test_every_pair_of_every_size_is_committed(result):
    runs = result["size"]["runs"]

    assert [run["pairs"] for run in runs] == [run["committed_pairs"] for run in runs] == list(TINY.sizes)
    assert [run["shards"] for run in runs] == [pairs // TINY.pairs_per_shard for pairs in TINY.sizes]
    assert all(run["driver_rss_peak_mib"] >= run["driver_rss_before_mib"] > 0 for run in runs)
    for size in result["size"]["sizes"]:
        assert {"steady_ms_per_pair_ratio", "driver_rss_beyond_mib_ratio", "object_store_peak_mib"} <= size.keys()


def test_every_number_of_actors_finishes_its_shards(result):
    rows = result["actors"]["rows"]

    assert [row["actors"] for row in rows] == list(TINY.actors) * len(TINY.shard_seconds)
    for row in rows:
        assert row["shards"] == TINY.shards_per_actor * row["actors"]
        assert row["committed_pairs"] == row["pairs"]


def test_requests_are_pairs_of_whole_users_each_once():
    asked = [
        (user, item)
        for table in stub_job.requests(60_007)
        for user, items in zip(table["user_id"].to_pylist(), table["item_ids"].to_pylist(), strict=True)
        for item in items
    ]

    assert len(asked) == len(set(asked)) == 60_007


def test_a_rate_is_the_slope_of_the_middle_half(tmp_path):
    bursts = [0, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 50]  # two a second, a slow start and a slow end

    assert stub_job.middle_rate(bursts) == pytest.approx(2.0, rel=0.15)
    assert len(stub_job.receipt_times(stub_run(str(tmp_path), "none"))) == 0


def test_a_steady_rate_is_of_the_pairs_between_the_first_receipt_and_the_last(tmp_path):
    run = stub_run(str(tmp_path), "night")
    receipts = tmp_path / "scores" / "night" / "receipts"
    receipts.mkdir(parents=True)
    for number, seconds in {0: 14.0, 1: 10.0, 2: 12.0}.items():  # shard 1 was finished first
        (receipts / f"{number:06}.json").touch()
        os.utime(receipts / f"{number:06}.json", (seconds, seconds))
    plan = ShardPlan(tuple(Shard(number, 1, pairs, "", "") for number, pairs in enumerate((40, 100, 20))))

    times = stub_job.receipt_times(run)

    assert list(times.items()) == [(1, 10.0), (2, 12.0), (0, 14.0)]
    assert stub_job.steady_pairs(plan, times) / stub_job.steady_seconds(times) == (40 + 20) / 4
