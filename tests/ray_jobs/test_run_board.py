"""What the driver's watchdog is told about a run that stands still."""

import pytest
import ray

from optirag_core.errors import ShardFailed
from ray_jobs.run_board import RunBoard, noted, told

pytestmark = pytest.mark.ray


@pytest.fixture
def board(local_ray):
    return RunBoard.remote(3)


def after(board, *events):
    for method, *arguments in events:
        getattr(board, method).remote(*arguments)
    return ray.get(board.stalled.remote())


def test_nothing_has_begun(board):
    assert after(board).startswith("stage `build` has not begun")


def test_the_stage_nearest_to_the_output_is_named(board):
    assert after(
        board, ("begin", "build", 3, 11, "a"), ("begin", "score", 1, 12, "b"), ("begin", "score", 2, 13, "b")
    ).startswith("stage `score` is at shard 1 since 0 s, in process 12 on b: look at that process")


def test_a_builder_is_named_when_no_scorer_is_at_work(board):
    assert "stage `build` is at shard 4 since 0 s, in process 11 on a" in after(
        board, ("begin", "build", 3, 11, "a"), ("end", "build", 11, "a"), ("begin", "build", 4, 11, "a")
    )


def test_scorers_that_never_began(board):
    assert "stage `score` has not begun a further shard after 0, and 1 are built" in after(
        board, ("begin", "build", 0, 11, "a"), ("end", "build", 11, "a")
    )


def test_a_scorer_that_stopped_between_two_shards(board):
    built = ("begin", "build", 0, 11, "a"), ("end", "build", 11, "a")
    said = after(board, *built, *built, ("begin", "score", 0, 12, "b"), ("end", "score", 12, "b"))
    assert "stage `score` has not begun a further shard after 1, the last in process 12 on b, and 2 are built" in said


def test_a_shard_counts_its_processes(board):
    assert [ray.get(board.begin.remote("score", 0, pid, "b")) for pid in (12, 13)] == [(1, 3), (2, 3)]
    assert "in process 13 on b" in after(board)  # the first one died at it


@pytest.fixture
def telling_board(local_ray):
    return RunBoard.remote(3, tells=True)


def taken(board):
    """The events since the last time, without what differs from machine to machine."""
    events = ray.get(board.take.remote())
    return [(each["event"], each["stage"], each["shard"], each["attempt"], each.get("error")) for each in events]


def test_a_finished_shard_is_told_once(telling_board):
    for stage, figures in (("build", {}), ("score", {"pairs": 2}), ("score", {"pairs": 2})):
        with noted(telling_board, stage, 7) as said:
            said |= figures

    assert taken(telling_board) == [
        ("shard_begun", "build", 7, 1, None),
        ("shard_begun", "score", 7, 1, None),
        ("shard_finished", "score", 7, 1, None),
        ("shard_begun", "score", 7, 2, None),  # a retry, which finds the receipt
    ]
    assert taken(telling_board) == []


def test_a_shard_that_fails_is_told_with_the_kind_of_its_error(telling_board):
    with pytest.raises(KeyError), noted(telling_board, "build", 3):
        raise KeyError("somebody's id")

    events = ray.get(telling_board.take.remote())
    assert [(each["event"], each.get("error")) for each in events] == [
        ("shard_begun", None), ("shard_failed", "KeyError"),
    ]  # fmt: skip
    assert "somebody" not in str(events)


def test_a_process_that_died_is_told_when_another_one_begins_its_shard(telling_board):
    for pid in range(11, 14):
        telling_board.begin.remote("score", 5, pid, "there")
    with pytest.raises(ShardFailed), noted(telling_board, "score", 5):
        pass

    events = ray.get(telling_board.take.remote())
    begun, failed = ([each for each in events if each["event"] == name] for name in ("shard_begun", "shard_failed"))
    assert len(begun) + len(failed) == len(events)
    assert [each["pid"] for each in begun] == [each["pid"] for each in failed] == [11, 12, 13]
    assert {(each["error"], each["host"]) for each in failed} == {("ProcessDied", "there")}
    assert [each["attempt"] for each in failed] == [1, 2, 3]


def test_a_board_that_nobody_listens_to_keeps_nothing(board):
    with noted(board, "score", 1) as said:
        said["pairs"] = 2

    assert ray.get(board.take.remote()) == []


def test_all_is_told_when_the_body_ends(telling_board):
    heard = []
    with told(telling_board, heard.extend), noted(telling_board, "score", 1) as said:
        said["pairs"] = 2

    assert [each["event"] for each in heard] == ["shard_begun", "shard_finished"]
