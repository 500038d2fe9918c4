"""The scorer against one pair at a time with a softmax over the whole vocabulary."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError
from tests.reference import score_pair

ANSWERS = (7, 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def heads(model):
    heads = ExitHeads(model, (3, 4), ANSWERS)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return heads


def random_groups(seed: int) -> list[UserGroup]:
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, 50, (length,), generator=generator).tolist()

    return [UserGroup(tokens(1, 30), [tokens(1, 8) for _ in range(number)]) for number in (3, 0, 1, 6)]


@pytest.mark.parametrize("criterion", ["ratio", "probability", "none"])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 1e9])
def test_scores_and_exit_layers_equal_the_reference(model, heads, criterion, threshold):
    policy = ExitPolicy(criterion, window=3, threshold=threshold)
    groups = random_groups(seed=1)

    scores = Scorer(model, heads, policy, ANSWERS).score(groups)

    for group, results in zip(groups, scores, strict=True):
        assert len(results) == len(group.suffixes)
        for suffix, result in zip(group.suffixes, results, strict=True):
            expected = score_pair(model, heads, policy, ANSWERS, [*group.prefix, *suffix])
            assert result.score == pytest.approx(expected.score, abs=1e-5)
            assert result.exit_layer == expected.exit_layer


def test_some_pairs_exit_and_some_do_not(model, heads):
    policy = ExitPolicy("ratio", window=3, threshold=0.05)

    layers = {
        pair.exit_layer for pairs in Scorer(model, heads, policy, ANSWERS).score(random_groups(1)) for pair in pairs
    }

    assert len(layers) > 1


def test_too_long_a_prompt_is_refused_before_any_compute(model, heads):
    scorer = Scorer(model, heads, ExitPolicy("ratio", 3, 0.01), ANSWERS)

    with pytest.raises(ModelError, match="65 tokens, the LLM's context is 64"):
        scorer.score([UserGroup([1] * 60, [[1], [2] * 5])])
