"""Vicuna-7B on an A100, by hand: 3.74e13 FLOPs of a user with 50 candidates, 156e12 a second."""

import pytest

from optirag_core.engine.cost import ModelShape
from optirag_core.planning.llm import VICUNA_7B
from optirag_core.planning.load import Load, Nodes
from optirag_core.planning.sharding import replicate
from optirag_core.planning.simulation import Cluster, Shards
from optirag_core.planning.work import scoring_flops

USER_FLOPS = 404_750_336 * (1063 * 31 + 50 * (36 * 31 + 1)) + 67_108_864 * (1063 + 50 * 35)
USER_FLOPS += 2 * 4096 * (1063**2 * 31 + 50 * (36 * (2 * 1063 + 36) * 31 + 2 * (1063 + 36)))
"""A layer's 4 d q + 4 d k + 6 d f = 404,750,336 per token; keys and values of the last one 67,108,864."""
LOAD = Load(
    users=1e6, candidates=50, prefix_tokens=1063, suffix_tokens=36, user_flops=USER_FLOPS,
    scorer_flops_per_s=156e12, pairs_per_shard=10_000,
)  # fmt: skip


def test_flops_of_a_user_are_those_of_the_cost_model():
    assert scoring_flops(ModelShape.of(VICUNA_7B), 1, 50, 1063, 36) == pytest.approx(USER_FLOPS)
    assert pytest.approx(3.7408e13, rel=1e-4) == USER_FLOPS
    # Two FLOPs for each of the 6.7e9 parameters and 2,863 tokens are 3.84e13: embeddings, and the last layer, are less.
    assert pytest.approx(2 * 6.7e9 * (1063 + 50 * 36), rel=0.03) == USER_FLOPS


def test_a_scorers_speed():
    """50 x 156e12 x 0.979 / 3.7408e13 pairs a second: 50 M pairs are 68 scorer hours."""
    assert LOAD.pairs_per_scorer_second == pytest.approx(204.13, rel=1e-3)
    assert LOAD.scorer_s / 3600 == pytest.approx(5e7 / 204.13 / 3600, rel=1e-3)


def test_shards_hold_whole_users():
    assert (LOAD.shard_users, LOAD.num_shards) == (200, 5000)
    assert LOAD.shard_s == pytest.approx(10_000 / 204.13, rel=1e-3)
    few = Load(**vars(LOAD) | {"users": 1001, "pairs_per_shard": 120})
    assert (few.shard_users, few.num_shards) == (3, 334)  # 150 pairs; the last shard has 2 users


def test_prompts_by_hand():
    """1,063 + 1,800 tokens of 4 bytes; at 671,000 tokens and 2,231 lookups a second of a core, 3 ms for the search."""
    assert LOAD.prompt_bytes == 11_452
    assert LOAD.prompt_core_s(0.003) == pytest.approx(2863 / 671_000 + 1 / 2231 + 0.003)


def test_the_driver_by_hand():
    """1 M users with 50 M pairs in 5,000 shards."""
    assert LOAD.planning_s == pytest.approx(1e6 * 2.046e-6 + 5e7 * 0.5056e-6 + 5000 * (0.05 / 16 + 1.862e-3))
    assert LOAD.commit_s == pytest.approx(5000 * 0.106e-3)
    assert LOAD.driver_gib == pytest.approx((668.6 + 5000 * 0.01176 + 25.98e6 / 2**20) / 1024)


def test_s3_by_hand():
    assert LOAD.s3_requests == 35_000
    assert LOAD.listing_s == pytest.approx(5 * 0.05 + 5000 * 0.05 / 16)


def test_a_nodes_speed_by_hand():
    """2 % at 2/3 are 0.9933; each hour of work has half a loss, which takes 400 s and half a shard of 50 s more."""
    nodes = Nodes(losses_per_hour=0.5, away_s=400.0, slow_share=0.02, slow_factor=1.5)
    assert nodes.speed(50.0) == pytest.approx((0.98 + 0.02 / 1.5) / (1 + 0.5 * 425 / 3600))
    assert Nodes(0.0, 400.0, 0.0, 1.5).speed(50.0) == 1.0


def test_the_formula_is_near_the_simulation():
    """40 scorers for about an hour, each lost twice an hour for 5 minutes, a quarter of them at half speed."""
    pytest.importorskip("simpy", reason="simpy simulates runs")
    cluster = Cluster(40, losses_per_node_hour=2.0, return_s=300.0, slow_share=0.25, slow_factor=2.0)
    work_s = 40 * 3600.0
    simulated = replicate(cluster, Shards(4800, 30.0), 10).p50_s
    expected = work_s / 40 / Nodes(2.0, 300.0, 0.25, 2.0).speed(30.0)
    assert simulated == pytest.approx(expected, rel=0.1)  # the end of the run comes on top
