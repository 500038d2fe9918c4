from pathlib import Path

import pytest

from optirag_core.config_file import load_settings
from optirag_core.errors import ConfigError
from optirag_core.planning.capacity import Scorers, flops_share, plan_capacity, scorers_of
from optirag_core.planning.counts import assumed_counts
from optirag_core.planning.limits import Limit, limits
from optirag_core.planning.load import Load, Nodes

CONFIG = Path(__file__).parents[2] / "ray_jobs" / "configs" / "a100-cluster.yaml"
ALWAYS_THERE = Nodes(0.0, 0.0, 0.0, 1.0)
LOAD = Load(
    users=36_000.0, candidates=50, prefix_tokens=1000, suffix_tokens=40, user_flops=1e13, scorer_flops_per_s=1e14,
    pairs_per_shard=100,
)  # fmt: skip


def capacity(*overrides):
    given = [("data", "none"), ("workspace", "nowhere"), ("plan.pairs", "50000000"), ("plan.accelerator_type", "A100")]
    settings = load_settings(CONFIG, [*given, *overrides])
    return plan_capacity(settings, assumed_counts(settings))


def test_gpus_for_the_hours_and_hours_of_the_gpus():
    """36,000 users of 0.1 s are 3,600 s and, at 97.9 % of the engine's speed, 3,677 s."""
    fixed_s = LOAD.planning_s + 100 + LOAD.commit_s
    for_an_hour = scorers_of(LOAD, ALWAYS_THERE, start_s=100.0, hours=(fixed_s + 500) / 3600, gpus=None)
    assert LOAD.scorer_s == pytest.approx(3677.2, rel=1e-4)
    assert for_an_hour.number == 8  # 7.35
    assert for_an_hour.scoring_s == pytest.approx(LOAD.scorer_s / 8)

    of_four = scorers_of(LOAD, ALWAYS_THERE, start_s=100.0, hours=8.0, gpus=4)
    assert of_four.hours == pytest.approx((fixed_s + LOAD.scorer_s / 4) / 3600)


def test_nodes_that_are_lost_make_it_longer():
    """One loss an hour that takes half an hour: 1.5 times as long, and a shard of 0.2 s hardly counts."""
    lossy = Nodes(losses_per_hour=1.0, away_s=1800.0, slow_share=0.0, slow_factor=1.0)
    calm_s, lossy_s = (scorers_of(LOAD, n, start_s=0, hours=8, gpus=1).scoring_s for n in (ALWAYS_THERE, lossy))
    assert lossy_s / calm_s == pytest.approx(1.5, rel=1e-3)


def test_too_few_hours_are_refused():
    with pytest.raises(ConfigError, match=r"start and commit alone take .* hours, asked are 0\.01: give more"):
        scorers_of(LOAD, ALWAYS_THERE, start_s=100.0, hours=0.01, gpus=None)


def test_what_is_paid_for():
    """2 GPUs from their start to the commit: not while the driver plans."""
    scorers = Scorers(2, planning_s=7200.0, start_s=300.0, scoring_s=3000.0, commit_s=300.0)
    assert scorers.hours == 3.0
    assert scorers.gpu_hours == 2.0


def test_a_run_of_vicuna_by_hand():
    """50 M pairs at 204.1 a second of a scorer; 1 M users' prompts of 11,452 bytes."""
    planned = capacity(("plan.gpus", "16"), ("plan.node.losses_per_hour", "0"), ("plan.node.slow_share", "0"))
    assert planned.load.pairs_per_scorer_second == pytest.approx(204.13, rel=1e-3)
    assert planned.scorers.scoring_s == pytest.approx(5e7 / 204.13 / 16, rel=1e-3)
    assert planned.pairs_per_s == pytest.approx(16 * 204.13, rel=1e-3)
    assert planned.num_nodes == 2
    assert planned.object_store_gib == pytest.approx(16 * 3 * 200 * 11_452 / 2**30)
    assert planned.prompts_gbit_s == pytest.approx(16 * 204.13 / 50 * 11_452 * 8 / 2 / 1e9, rel=1e-3)
    assert planned.prompt_cores == pytest.approx(
        16 * 204.13 / 50 * (2863 / 671_000 + 1 / 2231 + 1e6 / 73.2e6), rel=1e-3
    )
    assert planned.node_gib == pytest.approx(6_738_415_616 * 2 / 2**30 + planned.lookups.gib)


def test_settings_of_the_plan_win():
    half = capacity(("plan.flops_share", "0.5"), ("plan.scoring_utilization", "0.25"))
    assert half.load.pairs_per_scorer_second == pytest.approx(capacity().load.pairs_per_scorer_second)
    assert half.flops_share_source == "plan.flops_share"


@pytest.mark.parametrize(("criterion", "said"), [("none", "names no certified policy"), ("calibrated", "is certified")])
def test_full_depth_where_no_policy_is_certified(tmp_path, criterion, said):
    overrides = [("data", "none"), ("workspace", str(tmp_path)), ("exit_policy.criterion", criterion)]
    share, source = flops_share(load_settings(CONFIG, overrides))
    assert share == 1.0
    assert said in source


def test_the_scarcest_comes_first():
    """5e9 pairs: histories and retriever of 100 M users, 500,000 shards."""
    found = limits(capacity(("plan.pairs", "5000000000"), ("plan.hours", "12")))
    ratios = [limit.ratio for limit in found]
    assert ratios == sorted(ratios, reverse=True)
    by_name = {limit.name: limit for limit in found}
    assert len(by_name) == len(found)
    assert by_name["time to train the retriever"].ratio == pytest.approx(20 * 2e9 * 30.1e-6 / 86_400)
    assert by_name["driver's memory"].needs == pytest.approx((668.6 + 500_000 * 0.01176 + 25.98e8 / 2**20) / 1024)


def test_shards_that_are_too_many_for_the_driver_are_told_to_be_larger():
    """2.5 M shards of 2,000 pairs: 100 and more receipts a second."""
    planned = capacity(("plan.pairs", "5000000000"), ("plan.hours", "12"), ("run.pairs_per_shard", "2000"))
    by_name = {limit.name: limit for limit in limits(planned)}
    receipts = by_name["receipts at the driver"]
    assert receipts.ratio > 1
    assert receipts.remedy == f"run.pairs_per_shard {planned.best_pairs_per_shard:,} or more"
    assert planned.best_pairs_per_shard > 2000
    larger = capacity(
        ("plan.pairs", "5000000000"), ("plan.hours", "12"), ("run.pairs_per_shard", str(planned.best_pairs_per_shard))
    )  # fmt: skip
    assert {limit.name: limit for limit in limits(larger)}["receipts at the driver"].ratio < 1


def test_a_limit_by_hand():
    assert Limit("x", 3.0, 2.0, "GiB", "", "").ratio == 1.5


def test_an_index_is_only_limited_where_it_takes_time():
    assert "making the index" not in {limit.name for limit in limits(capacity())}
    lists = capacity(("index.factory", "IVF4096,PQ32"))
    limit = {limit.name: limit for limit in limits(lists)}["making the index"]
    assert limit.needs == pytest.approx(1e6 * 4096 * 14.26e-9 / 3600)
