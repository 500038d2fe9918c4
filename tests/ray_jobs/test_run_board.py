"""What the driver's watchdog is told about a run that stands still."""

import pytest
import ray

from ray_jobs.run_board import RunBoard

pytestmark = pytest.mark.ray


@pytest.fixture
def board(local_ray):
    return RunBoard.remote()


def told(board, *events):
    for method, *arguments in events:
        getattr(board, method).remote(*arguments)
    return ray.get(board.stalled.remote())


def test_nothing_has_begun(board):
    assert told(board).startswith("stage `build` has not begun")


def test_the_stage_nearest_to_the_output_is_named(board):
    assert told(
        board, ("begin", "build", 3, 11, "a"), ("begin", "score", 1, 12, "b"), ("begin", "score", 2, 13, "b")
    ).startswith("stage `score` is at shard 1 since 0 s, in process 12 on b: look at that process")


def test_a_builder_is_named_when_no_scorer_is_at_work(board):
    assert "stage `build` is at shard 4 since 0 s, in process 11 on a" in told(
        board, ("begin", "build", 3, 11, "a"), ("end", "build", 11, "a"), ("begin", "build", 4, 11, "a")
    )


def test_scorers_that_never_began(board):
    assert "stage `score` has not begun a further shard after 0, and 1 are built" in told(
        board, ("begin", "build", 0, 11, "a"), ("end", "build", 11, "a")
    )


def test_a_scorer_that_stopped_between_two_shards(board):
    built = ("begin", "build", 0, 11, "a"), ("end", "build", 11, "a")
    said = told(board, *built, *built, ("begin", "score", 0, 12, "b"), ("end", "score", 12, "b"))
    assert "stage `score` has not begun a further shard after 1, the last in process 12 on b, and 2 are built" in said


def test_a_shard_counts_its_processes(board):
    assert [ray.get(board.begin.remote("score", 0, pid, "b")) for pid in (12, 13)] == [1, 2]
    assert "in process 13 on b" in told(board)  # the first one died at it
