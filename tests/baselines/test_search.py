"""What is tried."""

from optirag_core.baselines.search import Hyperparameters, drawn
from optirag_core.config.baselines import BaselinesSettings

GRID = BaselinesSettings(
    learning_rates=(1e-3, 1e-2), weight_decays=(0.0,), dropouts=(0.0, 0.5), num_layers=(1, 2), num_trials=3
)


def test_different_points_of_the_grid_by_the_seed():
    points = drawn(GRID, 0)
    assert len(set(points)) == len(points) == 3
    assert points == drawn(GRID, 0)
    assert any(points != drawn(GRID, seed) for seed in range(1, 5))
    assert drawn(GRID.model_copy(update={"num_trials": 4}), 0)[:3] == points


def test_all_points_where_there_are_no_more():
    points = drawn(GRID.model_copy(update={"num_trials": 100}), 0)
    assert set(points) == {
        Hyperparameters(learning_rate, 0.0, dropout, num_layers)
        for learning_rate in (1e-3, 1e-2)
        for dropout in (0.0, 0.5)
        for num_layers in (1, 2)
    }
