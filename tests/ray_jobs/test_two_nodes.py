"""Two Ray nodes score a run on S3, and one of them is killed: every pair is there once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from optirag_core.config.run import StorageSettings
from optirag_core.inference.opening import TRAINED
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage.base import open_storage
from tests.finished_run import changed
from tests.ray_jobs.nodes import TIMEOUT_S, further_node, head_node, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.s3, pytest.mark.thorough]


@pytest.fixture
def settings(own_workspace, s3_bucket):
    """Artifacts in a bucket, a shard per user or two, a scorer and a prompt builder for each node."""
    storage, root = open_storage(s3_bucket, StorageSettings()), Path(own_workspace.workspace)
    for kind in TRAINED:
        for file in sorted(path for path in (root / kind).rglob("*") if path.is_file()):
            storage.upload(file, file.relative_to(root).as_posix())
    actors = {"num_scorers": 2, "num_cpus_per_scorer": 1.0, "num_prompt_builders": 2, "torch_threads": 1}
    settings = changed(own_workspace, run={"pairs_per_shard": 1, "lease_s": 5.0}, actors=actors)
    return settings.model_copy(update={"workspace": s3_bucket})


def begun(settings, head, run, folder, *options):
    """A job on the cluster."""
    config = folder / f"{run}.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "ray_jobs.score", "--config", str(config), "--run.name", run]
    command += ["--ray.address", head.address, *options]
    with (folder / f"{run}.log").open("w") as log:
        return subprocess.Popen(command, env=head.environment, stdout=log, stderr=log)


def ended(process, folder, run, code=0):
    """What the job has said."""
    process.wait(TIMEOUT_S)
    log = (folder / f"{run}.log").read_text()
    assert process.returncode == code, log[-3000:]
    return log


def killed_midway(settings, run, node):
    """The receipts that were there when the node died, with a scorer at work."""
    wait_until(lambda: receipts(settings, run) >= 20 and node.actors("ScorePrompts"))
    before = receipts(settings, run)
    node.kill()
    return before


def receipts(settings, run):
    return len(open_storage(settings.workspace, settings.storage).list(f"scores/{run}/receipts"))


def compared(settings, run, before):
    """What a run lost, doubled or repeated against the one named `undisturbed`."""
    expected, scores = (
        read_scores(f"{settings.workspace}/scores/{name}").drop_columns("scored_at") for name in ("undisturbed", run)
    )
    pairs = set(zip(scores["user_id"].to_pylist(), scores["item_id"].to_pylist(), strict=True))
    repeated = len(Run(open_storage(settings.workspace, settings.storage), run).leftovers()) / 2  # scores and rejects
    return {
        "tried": 1, "pairs": len(expected), "lost": len(expected) - len(pairs), "duplicated": len(scores) - len(pairs),
        "different": int(not scores.equals(expected)),
        "shards": receipts(settings, run), "shards_before": before, "shards_repeated": repeated,
    }  # fmt: skip


def test_another_node_scores_what_a_dead_one_had(settings, tmp_path, reliability):
    with head_node(num_cpus=4, alone=False) as head, further_node(head, tmp_path / "further") as further:
        start = time.monotonic()
        ended(begun(settings, head, "undisturbed", tmp_path), tmp_path, "undisturbed")
        undisturbed_s = time.monotonic() - start

        start = time.monotonic()
        process = begun(settings, head, "killed", tmp_path)
        before = killed_midway(settings, "killed", further)
        ended(process, tmp_path, "killed")
        seconds = {"seconds": round(time.monotonic() - start, 1), "seconds_undisturbed": round(undisturbed_s, 1)}

    figures = compared(settings, "killed", before)
    reliability["SIGKILL of one of two Ray nodes, workspace on S3"] = figures | seconds
    assert figures["shards_before"] < figures["shards"]
    assert (figures["lost"], figures["duplicated"], figures["different"]) == (0, 0, 0)
