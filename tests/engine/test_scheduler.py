"""The order of steps, by token counts."""

import torch

from optirag_core.engine.decoder import Flight
from optirag_core.engine.layout import Layout, PackedGroup, PromptPart
from optirag_core.engine.scheduler import DepthQueues


def part(number: int, tokens: int) -> PromptPart:
    return PromptPart(user_group=number, prefix=[0] * (tokens - 1), suffixes=[[0]], candidates=[0])


def flight(depth: int, tokens: int, number: int = 0) -> Flight:
    layout = Layout((PackedGroup(user_group=number, prefix=tokens - 1, suffixes=(1,), candidates=(0,)),))
    return Flight(layout, torch.full((1, tokens, 2), float(number)), depth, (torch.zeros(1, 2),))


def queues(*tokens: int, max_tokens: int = 200, max_waits: int | None = None, apart: bool = False) -> DepthQueues:
    waiting = DepthQueues(step_tokens=100, max_tokens=max_tokens, max_waits=max_waits, apart=apart)
    waiting.admit(part(number, size) for number, size in enumerate(tokens))
    return waiting


def numbers(work: Flight | list[PromptPart]) -> list[int]:
    return [group.user_group for group in (work.layout.groups if isinstance(work, Flight) else work)]


def test_groups_are_admitted_in_order_up_to_a_step():
    waiting = queues(60, 30, 20, 90, 150)

    assert [numbers(waiting.take()) for _ in range(4)] == [[0, 1], [2], [3], [4]]
    assert waiting.take() is None


def test_the_deepest_queue_that_fills_a_step_runs_first():
    waiting = queues(10, max_tokens=1000)
    for depth, tokens in ((5, 100), (10, 60), (10, 40), (20, 99)):
        waiting.put(flight(depth, tokens))

    taken = [waiting.take() for _ in range(4)]

    assert [row.depth for row in taken[:2]] == [10, 5]
    assert taken[0].layout.num_tokens == 100
    assert numbers(taken[2]) == [0]
    assert taken[3].depth == 20


def test_nothing_is_admitted_beyond_what_may_be_in_flight():
    waiting = queues(10, max_tokens=200)
    waiting.put(flight(5, 70))
    waiting.put(flight(10, 40))

    assert waiting.take().depth == 10
    assert numbers(waiting.take()) == [0]


def test_parts_that_come_later_stand_behind_the_others():
    waiting = queues(60, 70)

    assert numbers(waiting.take()) == [0]
    waiting.admit([part(2, 20)])
    assert numbers(waiting.take()) == [1, 2]
    assert waiting.take() is None
    waiting.admit([part(3, 20)])
    assert numbers(waiting.take()) == [3]


def test_held_rows_wait_until_they_are_released():
    waiting = queues()
    waiting.hold(1, flight(5, 10, number=1))
    waiting.hold(1, flight(5, 20, number=1))
    waiting.hold(2, flight(5, 30, number=2))

    assert waiting.take() is None
    waiting.release(1)
    assert waiting.take().layout.num_tokens == 30
    waiting.drop(2)
    waiting.release(2)
    assert waiting.take() is None


def test_held_rows_count_as_in_flight_but_never_keep_out_what_they_wait_for():
    waiting = queues(10, max_tokens=200)
    waiting.hold(1, flight(5, 150, number=1))
    waiting.put(flight(10, 40, number=2))

    assert numbers(waiting.take()) == [2]  # 190 tokens are in flight
    assert numbers(waiting.take()) == [0]


def test_rows_that_run_again_keep_their_place():
    waiting = queues()
    waiting.put(flight(5, 70, number=3))
    waiting.put_back([flight(5, 60, number=1), flight(5, 60, number=2)])
    waiting.halve()

    assert [numbers(waiting.take()) for _ in range(3)] == [[1], [2], [3]]
    assert (waiting.step_tokens, waiting.halvings) == (50, 1)


def test_a_row_that_was_passed_over_too_often_goes_first():
    """Steps of 100 tokens: new groups fill one each, and at depth 9 a full step comes in again and again."""
    waiting = queues(100, 100, 100, max_tokens=1000, max_waits=2)
    waiting.put(flight(4, 10, number=7))

    taken = []
    for _ in range(6):
        taken.append(numbers(waiting.take()))
        if taken[-1] in ([0], [1]):
            waiting.put(flight(9, 100, number=8))

    # 1: group 0; its row at depth 9 comes. 2: that row, which fills a step. 3: the row at depth 4, passed over twice.
    # 4: group 1; its row comes. 5: that row. 6: group 2
    assert taken == [[0], [8], [7], [1], [8], [2]]
    assert waiting.take() is None


def test_the_longest_wait_goes_first_and_takes_others_of_its_depth_along():
    waiting = queues(max_waits=1)
    for depth, number in ((2, 1), (6, 2), (2, 3)):
        waiting.put(flight(depth, 10, number))
    assert numbers(waiting.take()) == [2]  # nothing fills a step: the deepest
    waiting.put(flight(6, 10, 4))
    assert numbers(waiting.take()) == [1, 3]
    assert numbers(waiting.take()) == [4]


def test_without_a_limit_a_row_waits_until_nothing_else_is_left():
    waiting = queues(*[100] * 20, max_tokens=1000)
    waiting.put(flight(4, 10, number=99))
    assert [numbers(waiting.take()) for _ in range(21)] == [*([number] for number in range(20)), [99]]


def test_kept_apart_each_row_goes_alone_and_the_deepest_at_once():
    waiting = queues(10, 10, apart=True)
    waiting.put(flight(5, 10, number=7))
    waiting.put(flight(5, 10, number=8))
    assert [numbers(waiting.take()) for _ in range(4)] == [[7], [8], [0], [1]]
    assert waiting.take() is None


def test_merged_rows_keep_their_tokens_apart():
    waiting = queues()
    waiting.put(flight(5, 30, number=1))
    waiting.put(flight(5, 20, number=2))

    row = waiting.take()

    assert numbers(row) == [1, 2]
    assert row.hidden[0, :, 0].tolist() == [1.0] * 30 + [2.0] * 20
    assert row.window[0].shape == (2, 2)


def test_the_tokens_that_wait_are_counted_by_depth():
    waiting = queues(10)
    for depth, tokens in ((5, 70), (5, 20), (10, 40)):
        waiting.put(flight(depth, tokens))
    waiting.hold(1, flight(10, 8, number=1))

    assert +waiting.waiting_tokens() == {5: 90, 10: 48}  # what is not admitted yet does not count
    while waiting.take() is not None:
        pass
    assert +waiting.waiting_tokens() == {10: 8}
