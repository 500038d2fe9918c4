"""What a job asks of a cluster that has it, has it not, or grows until it has it."""

import subprocess
import sys
from pathlib import Path

import pytest
from ray.util.placement_group import placement_group_table

from optirag_core.config.run import ActorsSettings, LlmWorkersSettings
from optirag_core.errors import ResourcesMissing
from ray_jobs.resources import check_actors, check_workers
from tests.ray_jobs.nodes import head_node

pytestmark = pytest.mark.ray
REPOSITORY = Path(__file__).parents[2]
A100 = {"CPU": 2, "GPU": 1, "accelerator_type:A100": 1}
JOB = """
import sys
import time
import ray
from tests.ray_jobs.test_shard_stream import Placed, run_stubs
ray.init(address=sys.argv[1], log_to_driver=False)
assert "GPU" not in ray.cluster_resources()
finished = run_stubs(sys.argv[2], Placed, wait_for_nodes_s=float(sys.argv[3]), num_gpus_per_scorer=1,
                     num_cpus_per_scorer=0, accelerator_type="A100")
assert finished["metrics"]["scored"] == 24
ray.shutdown()
ray.init(address=sys.argv[1], log_to_driver=False)  # another driver: what the first one asked for is gone with it
deadline = time.monotonic() + 120
while "GPU" in ray.cluster_resources() and time.monotonic() < deadline:
    time.sleep(1)
assert "GPU" not in ray.cluster_resources()
"""


def test_what_is_there_is_not_waited_for():
    check_actors(ActorsSettings(num_scorers=2), wait_s=1e9)
    check_workers("llm", LlmWorkersSettings(num_workers=2), wait_s=1e9)
    check_workers("retriever", LlmWorkersSettings(num_workers=0, num_gpus_per_worker=1), wait_s=1e9)


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"num_workers": 3}, "2 of 3 workers find 1 CPU on the 1 nodes: add nodes, or lower training.llm.num_workers"),
        ({"num_gpus_per_worker": 1}, "0 of 1 workers find 1 GPU on"),
        ({"accelerator_type": "A100"}, r"0 of 1 workers find 0\.001 accelerator_type:A100 on"),
    ],
)
def test_a_training_names_what_the_cluster_lacks(options, lacking):
    with pytest.raises(ResourcesMissing, match=lacking):
        check_workers("llm", LlmWorkersSettings(**options), wait_s=0.0)


def test_what_nobody_brings_is_refused_in_time_and_no_longer_asked_for():
    with pytest.raises(ResourcesMissing, match=r"0 of 1 scorers find 1 GPU on .* nodes, after 0\.5 s of waiting"):
        check_actors(ActorsSettings(num_gpus_per_scorer=1), wait_s=0.5)

    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}


@pytest.mark.slow
@pytest.mark.thorough
def test_an_autoscaler_brings_a_gpu_for_the_job_and_takes_it_away(tmp_path):
    with head_node(num_cpus=1, autoscaled={"a100": A100}) as head:
        job = [sys.executable, "-c", JOB, head.address, str(tmp_path)]
        finished = subprocess.run(
            [*job, "120"],
            env=head.environment,
            cwd=REPOSITORY,
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )

    assert finished.returncode == 0, finished.stderr[-3000:]
