"""The comparison counts what changes, and lets every user in once."""

import random

import pytest

from benchmarks.composition import MODES, arrived, changes, compared, composition, totals
from optirag_core.engine.groups import PairScore
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import CONFIGS, random_group, random_heads, tiny_model

GROUPS = [random_group(20 + 3 * seed, [3, 5, 2, 4], seed) for seed in range(8)]


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    model = tiny_model(CONFIGS["llama"])
    heads, policy = random_heads(model), ExitPolicy("ratio", 3, 0.05)
    return {name: Scorer(model, heads, policy, deterministic=fixed) for name, fixed in MODES.items()}


def test_what_changes_by_hand():
    before = [[PairScore(0.9, 3), PairScore(0.2, 5)], [PairScore(place / 20, 7) for place in range(12)]]
    swapped = [PairScore(0.1, 3), PairScore(0.2, 7)]  # two scores and one layer; another order of the same two
    entered = [*before[1][:1], PairScore(0.5625, 7), *before[1][2:]]  # from outside of the ten best to place 1

    found = changes(before, [swapped, entered])

    assert found == {
        "lists": 2, "lists_changed": 2, "lists_changed_as_sets": 1, "pairs": 14, "scores_changed": 2,
        "exit_layers_changed": 1, "largest_difference": pytest.approx(0.8),
    }  # fmt: skip
    assert totals([found, found])["lists_changed"] == 4
    assert totals([found, found])["largest_difference"] == pytest.approx(0.8)
    assert changes(before, before)["lists_changed"] == 0


def test_a_composition_holds_every_user_once():
    arrivals = composition(50, 7, random.Random(0))
    assert sorted(user for arrival in arrivals for user in arrival) == list(range(50))
    assert {len(arrival) for arrival in arrivals} <= set(range(1, 8))
    assert arrivals != composition(50, 7, random.Random(1))


@pytest.mark.parametrize("overlap", [False, True])
def test_scores_come_back_in_the_groups_order(scorers, overlap):
    arrivals = [[5, 0], [7], [1, 2, 6], [3, 4]]
    scores = arrived(scorers["deterministic"], GROUPS, arrivals, overlap=overlap)
    assert scores == scorers["deterministic"].score(GROUPS).scores


def test_the_deterministic_mode_changes_nothing(scorers):
    found = compared(scorers, GROUPS, compositions=3, most=4, seed=0)
    fixed, free = found["modes"]["deterministic"], found["modes"]["default"]
    assert (fixed["lists"], fixed["scores_changed"], fixed["largest_difference"]) == (24, 0, 0.0)
    assert free["scores_changed"] > 0  # or the comparison shows nothing
    assert found["largest_difference_between_modes"] < 1e-5
