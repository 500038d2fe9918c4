"""Many callers share an engine, and each gets what it would get alone."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import torch

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError
from serve_apps.engine_loop import EngineFailed, EngineLoop
from tests.engine.models import CONFIGS, random_group, random_heads, tiny_model

GROUPS = [random_group(20 + 7 * number, [1 + index % 4 for index in range(1 + number)], number) for number in range(12)]
POLICIES = {"normal": ExitPolicy("ratio", 3, 0.05), "overload": ExitPolicy("ratio", 3, 0.5)}


@pytest.fixture(scope="module")
def scorer() -> Callable[[str], Scorer]:
    """A scorer of one tiny model, by the name of its policy."""
    model = tiny_model(CONFIGS["llama"])
    heads = random_heads(model)
    return lambda policy: Scorer(model, heads, POLICIES[policy], max_tokens_in_flight=400)


@pytest.fixture
def loop(scorer) -> Iterator[EngineLoop]:
    engine = EngineLoop({policy: scorer(policy) for policy in POLICIES}, max_tokens=4096)
    yield engine
    engine.close()


def test_callers_of_two_policies_get_their_scores(loop, scorer):
    async def all_at_once() -> list:
        policies = ["normal", "overload"]
        return await asyncio.gather(*(loop.score(group, policies[n % 2]) for n, group in enumerate(GROUPS)))

    answers = asyncio.run(all_at_once())

    for number, policy in enumerate(POLICIES):
        alone = scorer(policy).score(GROUPS[number::2]).scores
        for answer, expected in zip(answers[number::2], alone, strict=True):
            assert [pair.exit_layer for pair in answer.scores] == [pair.exit_layer for pair in expected]
            assert [pair.score for pair in answer.scores] == pytest.approx([p.score for p in expected], abs=1e-5)
            assert answer.engine_s > 0 <= answer.queue_s


def test_a_refused_group_is_the_only_one(loop):
    async def asked() -> list:
        groups = [GROUPS[1], UserGroup([1] * 300, [[2]]), GROUPS[2]]
        return await asyncio.gather(*(loop.score(group, "normal") for group in groups), return_exceptions=True)

    first, refused, last = asyncio.run(asked())

    assert isinstance(refused, ModelError)
    assert len(first.scores) == 2
    assert len(last.scores) == 3


def fail_with(scorer: Scorer, poison: UserGroup, error: Exception) -> list[int]:
    """Let each step fail in which a group is; returns the sizes of the failed steps."""
    add, step, sizes = scorer.add, scorer.step, []
    poisoned: set[int] = set()
    inside: set[int] = set()

    def adds(groups: list[UserGroup]) -> list[int]:
        numbers = add(groups)
        inside.update(numbers)
        poisoned.update(number for number, group in zip(numbers, groups, strict=True) if group is poison)
        return numbers

    def steps() -> list:
        if poisoned & inside:
            sizes.append(len(inside))
            inside.clear()
            scorer._forget()
            raise error
        scored = step()
        inside.difference_update(group.number for group in scored)
        return scored

    scorer.add, scorer.step = adds, steps
    return sizes


def test_a_group_without_memory_fails_alone(scorer):
    failing = scorer("normal")
    failed = fail_with(failing, GROUPS[3], torch.OutOfMemoryError("no memory"))
    loop = EngineLoop({"normal": failing}, max_tokens=4096)

    async def asked() -> list:
        return await asyncio.gather(*(loop.score(group, "normal") for group in GROUPS[:6]), return_exceptions=True)

    answers = asyncio.run(asked())
    loop.close()

    assert isinstance(answers.pop(3), EngineFailed)
    assert [len(answer.scores) for answer in answers] == [1, 2, 3, 5, 6]
    assert failed[-1] == 1  # alone


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_is_told_when_the_engine_breaks(scorer):
    broken = scorer("normal")
    fail_with(broken, GROUPS[0], RuntimeError("nobody expects this"))
    loop = EngineLoop({"normal": broken}, max_tokens=4096)

    with pytest.raises(EngineFailed, match="has stopped"):
        asyncio.run(loop.score(GROUPS[0], "normal"))

    loop.close()
    assert not loop.is_alive


def test_a_question_is_answered_between_steps(loop):
    async def asked() -> tuple:
        return await asyncio.gather(loop.score(GROUPS[5], "normal"), loop.ask(lambda: 7))

    scores, answer = asyncio.run(asked())

    assert len(scores.scores) == 6
    assert answer == 7
