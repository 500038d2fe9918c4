"""Runs whose end is known by hand; and, whatever is lost, every shard once."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("simpy", reason="simpy simulates runs")

from optirag_core.planning.simulation import Cluster, Shards, simulate


def run(cluster, shards, **losses):
    return simulate(cluster, shards, seed=0, **losses)


def test_one_scorer_takes_the_sum():
    outcome = run(Cluster(1), Shards(7, 3.0))
    assert outcome.finish_s == outcome.scored_s == pytest.approx(21.0)
    assert outcome.lost_s == 0.0


def test_two_scorers_share_the_shards():
    assert run(Cluster(2), Shards(2, 3.0)).finish_s == pytest.approx(3.0)
    assert run(Cluster(2), Shards(7, 3.0)).finish_s == pytest.approx(12.0)  # 4 and 3


def test_start_up_and_commit_stand_at_the_ends():
    assert run(Cluster(2, start_up_s=100.0), Shards(4, 3.0, commit_s=5.0)).finish_s == pytest.approx(100 + 6 + 5)


def test_a_loss_costs_what_was_lost_and_the_time_until_the_node_is_back():
    """Starts at 2, is lost at 9: the third shard had run for 1 s. Back at 17, started at 19; 4 shards are left."""
    outcome = run(Cluster(1, start_up_s=2.0, return_s=8.0), Shards(6, 3.0), losses={0: [9.0]})
    assert outcome.lost_s == pytest.approx(1.0)
    assert outcome.finish_s == pytest.approx(2 + 18 + 1 + 8 + 2)
    assert (outcome.num_losses, list(outcome.attempts)) == (1, [1, 1, 2, 1, 1, 1])


def test_a_loss_between_runs_of_the_node_is_none():
    assert run(Cluster(1, return_s=8.0), Shards(2, 3.0), losses={0: [1.0, 5.0]}).num_losses == 1


def test_shards_stay_with_their_scorer_or_move():
    """4 shards, 2 each; the first node is lost at 1. The other ends its two at 6, and takes what may move."""
    lost = {0: [1.0]}
    stays = run(Cluster(2, return_s=100.0), Shards(4, 3.0), losses=lost)
    moves = run(Cluster(2, return_s=100.0, retries_move=True), Shards(4, 3.0), losses=lost)
    assert stays.finish_s == pytest.approx(1 + 100 + 6)
    assert moves.finish_s == pytest.approx(12.0)
    assert stays.lost_s == moves.lost_s == pytest.approx(1.0)


def test_scorers_of_a_node_are_lost_together():
    outcome = run(Cluster(4, scorers_per_node=2, return_s=1.0), Shards(4, 3.0), losses={1: [2.0]})
    assert outcome.lost_s == pytest.approx(4.0)
    assert list(outcome.attempts) == [1, 1, 2, 2]
    assert outcome.finish_s == pytest.approx(2 + 1 + 3)


def test_shards_of_a_lost_node_move_to_other_nodes():
    """Nodes of 4: 3 shards are at the first one, whose fourth scorer is idle, when it is lost at 1."""
    cluster = Cluster(8, scorers_per_node=4, return_s=100.0, retries_move=True)
    outcome = run(cluster, Shards(3, 3.0), losses={0: [1.0]})
    assert list(outcome.attempts) == [2, 2, 2]
    assert outcome.finish_s == pytest.approx(4.0)
    assert outcome.lost_s == pytest.approx(3.0)


def test_a_slow_node_takes_its_factor():
    assert run(Cluster(1, slow_share=1.0, slow_factor=2.5), Shards(2, 3.0)).finish_s == pytest.approx(15.0)


def test_the_driver_is_the_bound_where_receipts_come_faster_than_it_takes_them():
    """10 scorers end 10 shards at 1; one receipt takes 2 s."""
    assert run(Cluster(10), Shards(10, 1.0, driver_s=2.0)).finish_s == pytest.approx(1 + 20)
    assert run(Cluster(1), Shards(10, 3.0, driver_s=2.0)).finish_s == pytest.approx(30 + 2)


def test_durations_have_their_mean_and_spread():
    outcome = run(Cluster(1), Shards(20_000, 5.0, spread=0.3))
    assert outcome.scored_s / 20_000 == pytest.approx(5.0, rel=0.01)  # 4 standard errors are 0.8 %


def test_losses_come_at_their_rate():
    """100 nodes, 2 an hour each, over about 10 hours: 2,000 expected, 4.5 standard deviations are 10 %."""
    outcome = run(Cluster(100, losses_per_node_hour=2.0), Shards(3600, 1000.0, spread=0.1))
    assert outcome.num_losses == pytest.approx(2.0 * 100 * outcome.finish_s / 3600, rel=0.1)


@settings(deadline=None, max_examples=40)
@given(
    cluster=st.builds(
        Cluster, num_scorers=st.integers(1, 9), scorers_per_node=st.integers(1, 4), start_up_s=st.floats(0, 20),
        losses_per_node_hour=st.sampled_from([0.0, 1.0, 60.0]), return_s=st.floats(0, 50),
        slow_share=st.sampled_from([0.0, 0.5]), slow_factor=st.just(3.0), in_flight=st.integers(1, 3),
        retries_move=st.booleans(),
    ),
    shards=st.builds(
        Shards, number=st.integers(1, 60), mean_s=st.floats(0.5, 20), spread=st.sampled_from([0.0, 0.5]),
        driver_s=st.sampled_from([0.0, 0.3]), commit_s=st.just(1.0),
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_every_shard_is_finished_once_whatever_is_lost(cluster, shards, seed):
    outcome = simulate(cluster, shards, seed=seed)
    assert set(outcome.finished) == {1}
    assert min(outcome.attempts) >= 1
    assert outcome.finish_s >= cluster.start_up_s + outcome.scored_s / cluster.num_scorers + shards.commit_s - 1e-6
    assert outcome.lost_s == 0.0 or outcome.num_losses
    again = simulate(cluster, shards, seed=seed)
    assert math.isclose(again.finish_s, outcome.finish_s)
