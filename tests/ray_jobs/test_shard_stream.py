"""The stream of shards on Ray: what it asks of a cluster, what ends it, what it tells Prometheus."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import ray

from benchmarks.stubs import StubBuild, StubScore, stub_run
from optirag_core.config.settings import Settings
from optirag_core.errors import ResourcesMissing, ShardFailed
from optirag_core.runs.plan import plan_shards
from optirag_core.runs.work import begin
from ray_jobs.run_board import noted
from ray_jobs.score import score
from ray_jobs.shard_stream import Stage, shard_table, stream
from tests.finished_run import changed
from tests.runs.small import PARENTS, identity, small_requests

pytestmark = pytest.mark.ray
ACCELERATED = """
import sys
import ray
from tests.ray_jobs.test_shard_stream import Placed, run_stubs
ray.init(address="local", num_cpus=2, num_gpus=2, resources={"accelerator_type:A100": 1}, include_dashboard=False,
         object_store_memory=100 * 2**20, log_to_driver=False)
run_stubs(sys.argv[1], Placed, num_gpus_per_scorer=1, num_cpus_per_scorer=0, accelerator_type="A100")
"""


class Poisoned(StubScore):
    """Shard 1 ends whatever process scores it."""

    def __call__(self, row):
        number, _ = shard_table(row)
        if number == 1:
            with noted(self._board, "score", number):
                os._exit(1)
        return super().__call__(row)


class Placed(StubScore):
    """Scores only where it has its GPU."""

    def __call__(self, row):
        assert len(ray.get_gpu_ids()) == 1
        return super().__call__(row)


def planned_stubs(workspace, scorer):
    """A run of 4 shards, its plan in a folder, and stub stages."""
    run, folder = stub_run(workspace, "night"), Path(workspace) / "plan"
    plan = plan_shards([small_requests()], 4, folder)
    where = {"workspace": workspace, "run": run.name}
    build, score = Stage(StubBuild, where | {"prompt_tokens": 10}), Stage(scorer, where | {"seconds_per_pair": 0.0})
    return run, plan, folder, (build, score)


def run_stubs(workspace, scorer, *, wait_for_nodes_s=0.0, **options):
    """Take it to its commit."""
    run, plan, folder, stages = planned_stubs(workspace, scorer)
    settings = Settings(actors=options, ray={"wait_for_nodes_s": wait_for_nodes_s})
    with begin(run, identity(plan), plan, folder, lease_s=1.0) as work:
        for receipt in stream(work.left, *stages, settings):
            work.add(receipt)
        return work.commit(parents=PARENTS, max_reject_share=1.0)


def test_stages_that_only_pretend_to_score_finish_a_run(tmp_path):
    assert run_stubs(str(tmp_path), StubScore)["metrics"]["scored"] == 24


@pytest.mark.thorough
def test_a_shard_that_kills_every_scorer_ends_the_run_by_name(tmp_path):
    with pytest.raises(ShardFailed, match="shard 1 ended 3 processes of stage `score`"):
        run_stubs(str(tmp_path), Poisoned)

    assert run_stubs(str(tmp_path), StubScore)["metrics"]["scored"] == 24


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"num_gpus_per_scorer": 1, "accelerator_type": "A100"}, "0 of 1 scorers find 1 GPU on"),
        ({"accelerator_type": "A100"}, r"0 of 1 scorers find 0\.001 accelerator_type:A100 on"),
        ({"num_scorers": 50}, r"4 of 50 scorers find 0\.5 CPU on"),
        ({"num_prompt_builders": 9}, r"4 of 9 builders find 0\.5 CPU on"),
        ({"num_scorers": 3, "num_prompt_builders": 3}, "scorers and builders ask for 3 CPU, the cluster has 2"),
        ({"memory_gib_per_scorer": 4096}, "0 of 1 scorers find .* memory on"),
    ],
)
def test_what_the_cluster_lacks_is_named_before_the_first_shard(finished_run, options, lacking):
    with pytest.raises(ResourcesMissing, match=lacking):
        score(changed(finished_run, run={"name": f"lacking-{uuid.uuid4().hex}"}, actors=options))


@pytest.mark.thorough
@pytest.mark.slow
def test_scorers_are_placed_on_the_accelerator_asked_for(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", ACCELERATED, str(tmp_path)], check=False, capture_output=True, text=True, timeout=180
    )

    assert finished.returncode == 0, finished.stderr[-3000:]
