"""Scorers leave their model alone, so that others may use it at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import Tensor

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import CONFIGS, random_group, random_heads, tiny_model

RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
TIMEOUT_S = 60


def groups(seed: int) -> list[UserGroup]:
    return [random_group(20 + 30 * number, [3, 5, 1, 4], seed + number) for number in range(4)]


def plain_states(model) -> Tensor:
    """[2, T, D] of a padded batch."""
    prompts = torch.tensor([[4, 8, 15, 16, 23], [4, 2, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    with torch.no_grad():
        return model.model(input_ids=prompts, attention_mask=mask, use_cache=False).last_hidden_state


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_plain_forward_gives_the_same_bits_before_between_and_after_steps(family, attention):
    model = tiny_model(CONFIGS[family])
    model.set_attn_implementation(attention)
    expected = plain_states(model)

    scorer = Scorer(model, random_heads(model), RATIO)
    assert torch.equal(plain_states(model), expected)
    scorer.add(groups(0))
    while not scorer.is_finished:
        scorer.step()
        assert torch.equal(plain_states(model), expected)
    assert model.config._attn_implementation == attention


def test_two_threads_with_a_scorer_each_on_one_model_score_as_alone(model, heads):
    first, second = (Scorer(model, heads, RATIO) for _ in range(2))
    expected = [scorer.score(groups(seed)).scores for scorer, seed in ((first, 0), (second, 10))]
    first_runs, second_runs, first_is_done = Event(), Event(), Event()
    embed = first._decoder.embed, second._decoder.embed

    def embed_first(parts):
        first_runs.set()
        assert second_runs.wait(TIMEOUT_S)
        return embed[0](parts)

    def embed_second(parts):  # goes on only when the call that began before it has ended
        second_runs.set()
        assert first_is_done.wait(TIMEOUT_S)
        return embed[1](parts)

    first._decoder.embed, second._decoder.embed = embed_first, embed_second
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first.score, groups(0))
        one.add_done_callback(lambda _: first_is_done.set())
        assert first_runs.wait(TIMEOUT_S)
        other = threads.submit(second.score, groups(10))

        assert [one.result(TIMEOUT_S).scores, other.result(TIMEOUT_S).scores] == expected
