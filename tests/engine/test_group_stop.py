"""`group_stop` looks at whole user groups, however they were sliced for memory."""

from dataclasses import replace

import pytest
import torch

from optirag_core.engine.criterion import discrepancy, window_values
from optirag_core.engine.groups import PairScore
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import random_group, replay

RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
LARGE = [random_group(30, [1 + index % 5 for index in range(size)], size) for size in (40, 3, 25, 60)]
"""User groups of up to 210 tokens; steps of 40 tokens take some 4 candidates."""


def scorer(model, heads, policy: ExitPolicy, *, max_tokens: int) -> Scorer:
    return Scorer(model, heads, policy, max_tokens_in_flight=max_tokens)


@pytest.fixture(scope="module")
def trace(model, heads):
    return scorer(model, heads, RATIO, max_tokens=16384).trace(LARGE)


@pytest.fixture(scope="module", params=[2, 10, 30])
def policy(request, trace):
    """A threshold in the widest gap of the discrepancies from the lower third to the middle."""
    seen = discrepancy(window_values(trace.logits.flatten(0, 1), "ratio")).sort().values
    middle = seen[len(seen) // 3 : len(seen) // 2]
    widest = int(middle.diff().argmax())
    return replace(RATIO, threshold=float(middle[widest : widest + 2].mean()), group_stop=request.param)


def fates(scores: list[list[PairScore]]) -> list[tuple[int, bool]]:
    return [(pair.exit_layer, pair.forced) for pairs in scores for pair in pairs]


@pytest.mark.parametrize("max_tokens", [80, 100, 150, 300, 400])
def test_sliced_groups_stop_as_whole_ones(model, heads, policy, max_tokens):
    sliced = scorer(model, heads, policy, max_tokens=max_tokens).score(LARGE)

    whole = scorer(model, heads, policy, max_tokens=16384).score(LARGE)
    assert sliced.figures.cost.prefixes > whole.figures.cost.prefixes == len(LARGE)
    assert fates(sliced.scores) == fates(whole.scores)
    assert 0 < whole.figures.forced < whole.figures.pairs
    for pairs, others in zip(sliced.scores, whole.scores, strict=True):
        assert [pair.score for pair in pairs] == pytest.approx([pair.score for pair in others], abs=1e-5)


@pytest.mark.parametrize("max_tokens", [80, 150, 16384])
def test_a_replayed_trace_equals_the_live_run_and_costs_what_it_costs(model, heads, policy, max_tokens):
    live = scorer(model, heads, policy, max_tokens=max_tokens)

    replayed, scored = replay(live.trace(LARGE), policy), live.score(LARGE)

    assert fates(replayed.scores) == fates(scored.scores)
    assert replayed.cost == scored.figures.cost


@pytest.mark.parametrize("limit", [50, 60])
def test_halved_rows_stop_as_whole_ones(model, heads, policy, monkeypatch, limit):
    tight = scorer(model, heads, policy, max_tokens=200)
    close = tight._decoder.close

    def without_memory(opened, alive):  # late in the step: what it found out must not count twice
        if opened.flight.layout.num_tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return close(opened, alive)

    monkeypatch.setattr(tight._decoder, "close", without_memory)
    halved = tight.score(LARGE)

    whole = scorer(model, heads, policy, max_tokens=16384).score(LARGE)
    assert halved.figures.halvings == 1
    assert fates(halved.scores) == fates(whole.scores)


def test_groups_that_come_later_stop_as_all_at_once(model, heads, policy):
    online = scorer(model, heads, policy, max_tokens=100)
    numbers, scored = [], {}
    for group in LARGE:
        numbers += online.add([group])
        scored |= {done.number: done.scores for done in online.step()}
    while not online.is_finished:
        scored |= {done.number: done.scores for done in online.step()}

    assert fates([scored[number] for number in numbers]) == fates(
        scorer(model, heads, policy, max_tokens=16384).score(LARGE).scores
    )
