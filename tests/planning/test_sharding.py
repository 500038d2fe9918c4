import math

import pytest

from optirag_core.planning.sharding import attempts_needed, best_shard_s, replicate
from optirag_core.planning.simulation import Cluster, Shards


def test_the_best_shard_by_hand():
    """8 scorers for 1,000 s, 0.1 s beside the pairs: sqrt(1000 x 0.1 / 0.5) = 14.1.

    With 0.9 s and 36 losses an hour sqrt(1000 x 0.9 / 5.5) = 12.8.
    """
    quiet, lossy = Cluster(8), Cluster(8, losses_per_node_hour=36.0)
    assert best_shard_s(quiet, work_s=8000.0, overhead_s=0.1, driver_s=0.0) == pytest.approx(math.sqrt(200))
    assert best_shard_s(lossy, work_s=8000.0, overhead_s=0.9, driver_s=0.0) == pytest.approx(math.sqrt(900 / 5.5))


def test_slow_scorers_ask_for_smaller_shards():
    """They hold two: 1000 x 5 / (2 x 1 + 0.5)."""
    slow = Cluster(8, slow_share=0.1, slow_factor=2.0)
    assert best_shard_s(slow, work_s=8000.0, overhead_s=5.0, driver_s=0.0) == pytest.approx(math.sqrt(2000))


def test_a_shard_is_neither_too_short_nor_too_long_unless_the_driver_asks():
    few, many = Cluster(1), Cluster(10_000)
    assert best_shard_s(few, work_s=10.0, overhead_s=0.1, driver_s=0.0) == 10.0
    assert best_shard_s(few, work_s=1e7, overhead_s=1.0, driver_s=0.0) == 300.0
    assert best_shard_s(many, work_s=1e7, overhead_s=0.1, driver_s=0.05) == pytest.approx(1000.0)


def test_attempts_by_hand():
    """A shard of 360 s at 0.1 losses an hour is lost in 0.995 % of its attempts: 1e4 x 0.00995^a <= 1e-3 from 4 on."""
    cluster = Cluster(100, losses_per_node_hour=0.1)
    assert attempts_needed(cluster, shard_s=360.0, num_shards=1e4) == 4
    assert attempts_needed(cluster, shard_s=360.0, num_shards=1e4, failing_runs=1e-2) == 3
    assert attempts_needed(Cluster(100), shard_s=360.0, num_shards=1e4) == 1


def test_runs_of_one_seed_agree_and_percentiles_are_in_order():
    pytest.importorskip("simpy", reason="simpy simulates runs")
    cluster, shards = Cluster(5, losses_per_node_hour=20.0, return_s=10.0), Shards(50, 20.0, spread=0.2)
    one, two = (replicate(cluster, shards, 20, seed=3) for _ in range(2))
    assert one == two
    assert one.p50_s < one.p95_s <= one.p99_s
    assert 0.0 < one.lost_share < 0.2
    assert 0.5 < one.busy_share < 1.0
    assert len(one.attempts) == 20


def test_the_rule_is_within_a_few_percent_of_the_best_of_a_sweep():
    """The same work in shards of 2 to 300 s, each with 1 s beside its pairs."""
    pytest.importorskip("simpy", reason="simpy simulates runs")
    cluster, work_s = Cluster(20, losses_per_node_hour=2.0, return_s=30.0), 20 * 1800.0
    lengths = (2.0, 10.0, 30.0, 100.0, 300.0)
    rule = best_shard_s(cluster, work_s=work_s, overhead_s=1.0, driver_s=0.0)
    medians = {
        length: replicate(cluster, Shards(round(work_s / length), length + 1.0), 8).p50_s for length in (*lengths, rule)
    }
    assert lengths[1] < rule < lengths[3]
    assert medians[rule] < 1.03 * min(medians[length] for length in lengths)
    assert medians[rule] < 0.9 * medians[2.0]
