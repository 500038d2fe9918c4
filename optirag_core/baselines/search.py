"""What is tried on validation: the same settings for every model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from optirag_core.config.baselines import BaselinesSettings


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the grid."""

    learning_rate: float
    weight_decay: float
    dropout: float
    num_layers: int


def drawn(settings: BaselinesSettings, seed: int) -> Sequence[Hyperparameters]:
    """`num_trials` different points of the grid, all of them where it has no more."""
    grid = [
        Hyperparameters(*point)
        for point in product(
            settings.learning_rates, settings.weight_decays, settings.dropouts, settings.num_layers
        )
    ]  # fmt: skip
    chosen = np.random.default_rng(seed).permutation(len(grid))[: settings.num_trials]
    return [grid[number] for number in chosen]
