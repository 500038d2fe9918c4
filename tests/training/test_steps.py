"""Plans worked by hand: every sample has 10 tokens, a batch holds 20."""

import pytest

from optirag_core.config.llm import TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.steps import plan_steps, warmup_cosine

from .conftest import sample

SETTINGS = TuningSettings(batch_tokens=20, warmup_share=0.5, epochs=2)


def samples(number, first=0):
    """Prompts of 9 tokens and a candidate; the first token tells them apart."""
    return [sample([first + index] * 9, [[2]], [1]) for index in range(number)]


def plan(cold, main, *, seed=0, **changes):
    return plan_steps(cold, main, SETTINGS.model_copy(update=changes), seed=seed)


def named(step):
    return [[each.group.prefix[0] for each in batch] for batch in step.batches]


def test_the_rate_rises_over_the_warm_up_and_falls_by_a_cosine():
    assert warmup_cosine(6, 0.34) == pytest.approx([0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466])
    assert warmup_cosine(3, 1.0) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert warmup_cosine(1, 0.0) == [1.0]
    assert warmup_cosine(0, 0.5) == []


def test_every_epoch_holds_every_sample_once():
    """6 samples are 3 batches an epoch: steps 3 and 6 end one."""
    steps = plan([], samples(6))
    assert [step.ends_epoch for step in steps] == [False, False, True, False, False, True]
    for epoch in (steps[:3], steps[3:]):
        names = [name for step in epoch for name in named(step)[0]]
        assert sorted(names) == [0, 1, 2, 3, 4, 5]


def test_a_step_takes_several_batches():
    """2 epochs of 4 batches are 8 batches, 4 a step, one epoch."""
    steps = plan([], samples(8), batches_per_step=4)
    assert [[len(batch) for batch in step.batches] for step in steps] == [[2] * 4, [2] * 4]
    assert sorted(name for batch in named(steps[0]) for name in batch) == list(range(8))
    assert [step.ends_epoch for step in steps] == [True, True]


def test_batches_that_do_not_fill_a_step_are_left_out():
    """2 epochs of 3 batches, 4 a step: one step of the 6, which is in the second epoch and the last."""
    [step] = plan([], samples(6), batches_per_step=4)
    assert step.ends_epoch
    with pytest.raises(DataError, match="too few batches for one step of 4: lower batch_tokens"):
        plan([], samples(2), batches_per_step=4)


def test_the_cold_start_phase_comes_first_and_ends_no_epoch():
    steps = plan(samples(4, first=100), samples(4), cold_start_epochs=1)
    assert [named(step)[0][0] >= 100 for step in steps] == [True, True, False, False, False, False]
    assert [step.ends_epoch for step in steps] == [False, False, False, True, False, True]


def test_the_rate_restarts_between_the_phases_where_asked():
    """2 + 4 steps with half of them to warm up: one curve of 6, or one of 2 and one of 4."""
    one, two = (
        [step.rate for step in plan(samples(4), samples(4), cold_start_epochs=1, restart_learning_rate=restart)]
        for restart in (False, True)
    )
    assert one == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 0.75, 0.25])
    assert two == pytest.approx([1.0, 1.0, 0.5, 1.0, 1.0, 0.5])


@pytest.mark.parametrize(("max_steps", "ends"), [(1, [True]), (3, [False, False, True]), (4, [False] * 2 + [True] * 2)])
def test_the_last_step_counts_as_the_end_of_an_epoch(max_steps, ends):
    assert [step.ends_epoch for step in plan([], samples(6), max_steps=max_steps)] == ends


def test_a_limit_inside_the_cold_start_phase():
    [step] = plan(samples(4, first=100), samples(4), cold_start_epochs=1, max_steps=1, restart_learning_rate=True)
    assert step.rate == 1.0
    assert step.ends_epoch
