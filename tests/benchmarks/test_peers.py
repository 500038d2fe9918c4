"""The peers compute what the engine computes: a ratio of times compares the same work."""

import pytest
import torch

from benchmarks.peers import padded, prefix_cached
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import ANSWERS, CONFIGS, random_group, tiny_model


@pytest.mark.parametrize("peer", [padded, prefix_cached])
def test_peers_give_the_engines_scores_for_prompts_of_unequal_lengths(peer):
    model = tiny_model(CONFIGS["mistral"])
    groups = [random_group(9, [3, 5, 2], seed=1), random_group(4, [1], seed=2)]
    scorer = Scorer(model, ExitHeads(model, (3,), ANSWERS), ExitPolicy("none", 2, 0.0))

    expected = [pair.score for pairs in scorer.score(groups).scores for pair in pairs]

    with torch.inference_mode():
        assert peer(model, groups, ANSWERS) == pytest.approx(expected, abs=1e-5)
