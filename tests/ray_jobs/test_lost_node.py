"""A node dies and none takes its place: the others finish what it held.

Scorers are stopped before their node dies, so that it dies with shards in its hands, however short they are.
"""

import json
from contextlib import ExitStack, contextmanager

import pytest

from ray_jobs.score import score
from tests.finished_run import changed
from tests.ray_jobs.nodes import further_node, head_node, wait_until
from tests.ray_jobs.test_two_nodes import begun, compared, ended, receipts

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture
def settings(own_workspace):
    """A shard per user or two; an undisturbed run is there."""
    run = {"pairs_per_shard": 1, "lease_s": 5.0, "stall_timeout_s": 240.0}
    settings = changed(own_workspace, run=run, actors={"torch_threads": 1, "num_prompt_builders": 1})
    score(changed(settings, run={"name": "undisturbed"}))
    return settings


@contextmanager
def cluster(folder, head_cpus, further):
    """A head and further nodes with room for one CPU each."""
    with ExitStack() as stack:
        head = stack.enter_context(head_node(num_cpus=head_cpus, alone=False))
        yield head, [stack.enter_context(further_node(head, folder / str(n), num_cpus=1)) for n in range(further)]


def lost(settings, run, nodes, num_scorers, kind):
    """Receipts that are there when a node with an actor of this kind dies."""
    wait_until(lambda: receipts(settings, run) >= 10 and sum(len(scorers(node)) for node in nodes) == num_scorers)
    node = next(node for node in nodes if node.actors(kind))
    for scorer in scorers(node):
        scorer.suspend()
    soon = receipts(settings, run) + 10
    wait_until(lambda: receipts(settings, run) >= soon)
    before = receipts(settings, run)
    node.kill()
    return before


def scorers(node):
    """Those that have loaded their model."""
    return [each for each in node.actors("ScorePrompts") if "__init__" not in " ".join(each.cmdline())]


def scored(file):
    """(process id, shard) in the order in which shards were finished."""
    events = [json.loads(line) for line in file.read_text().splitlines()]
    return [(each["pid"], each["shard"]) for each in events if each["event"] == "shard_finished"]


def test_another_scorer_does_the_rest_and_makes_room_for_what_the_lost_one_held(settings, tmp_path, reliability):
    """Each node has room for one scorer, so that the second one cannot start again beside the first."""
    actors = {"num_scorers": 2, "num_cpus_per_scorer": 0.9, "num_cpus_per_prompt_builder": 0.1}
    settings, events = changed(settings, actors=actors), tmp_path / "events.jsonl"
    with cluster(tmp_path, 1, 1) as (head, nodes):
        process = begun(settings, head, "smaller", tmp_path, "--tracking.events", str(events))
        before = lost(settings, "smaller", nodes, 1, "ScorePrompts")
        ended(process, tmp_path, "smaller")

    finished = scored(events)
    held = [shard for pid, shard in finished if pid == finished[-1][0]]
    figures = compared(settings, "smaller", before) | {"shards_held": len(held)}
    reliability["SIGKILL of one of two Ray nodes, none takes its place"] = figures
    assert finished[-1][0] not in {pid for pid, _ in finished[:before]}  # a process that began when the rest was done
    assert [shard for _, shard in finished[-len(held) :]] == held
    assert (figures["lost"], figures["duplicated"], figures["different"]) == (0, 0, 0)
