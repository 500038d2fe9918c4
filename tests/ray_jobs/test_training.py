"""Training on two Ray Train workers, the LLM in parts: all of them learn what one process learns."""

import pytest
from ray.train import RunConfig

from optirag_core.artifacts import Workspace
from optirag_core.config.run import LlmWorkersSettings, WorkersSettings
from optirag_core.inference.opening import TRAINED
from ray_jobs.pipeline import TRAINING
from ray_jobs.train_loop import _trainer
from tests.finished_run import changed

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.thorough  # tests/training/test_parallel.py has the same without Ray
def test_two_workers_train_what_one_process_trains(finished_run, tmp_path):
    resources = {"num_workers": 2, "num_cpus_per_worker": 0.5, "torch_threads": 1}
    two = WorkersSettings(**resources)
    settings = changed(
        finished_run.model_copy(update={"workspace": str(tmp_path / "workspace")}),
        training={"retriever": two, "llm": LlmWorkersSettings(**resources, parallelism="fsdp"), "exit_heads": two},
    )  # fmt: skip
    alone = Workspace(finished_run.workspace)

    made = {artifact.kind: artifact for artifact in (job(settings) for job in TRAINING)}
    llm, heads = made["llm"], made["exit_heads"]

    retriever, expected = Workspace(settings.workspace).open("retriever"), alone.open("retriever").metrics
    assert retriever.metrics["num_epochs"] == expected["num_epochs"]
    assert retriever.metrics["validation_loss"] == pytest.approx(expected["validation_loss"], abs=1e-4)
    loss = alone.open("llm").metrics["validation_log_loss"]
    assert llm.metrics["validation_log_loss"] == pytest.approx(loss, abs=2e-3)  # Muon orthogonalises in bfloat16
    losses = heads.metrics["validation_loss"], alone.open("exit_heads").metrics["validation_loss"]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert {path.name for path in (tmp_path / "workspace").iterdir()} == {*TRAINED, "exit_features"}


def test_workers_are_pinned_to_an_accelerator_type():
    workers = WorkersSettings(num_gpus_per_worker=1, num_cpus_per_worker=2, accelerator_type="A100")

    scaling = _trainer(print, {}, workers, RunConfig()).scaling_config

    assert scaling.accelerator_type == "A100"
    assert scaling.resources_per_worker == {"CPU": 2, "GPU": 1}
