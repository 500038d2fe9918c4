"""Training on two Ray Train workers: the retriever learns the same as in one process, LLM and heads come out whole."""

import pytest

from optirag_core.artifacts import Workspace
from ray_jobs.prepare_data import prepare_data
from ray_jobs.train_exit_heads import train_exit_heads
from ray_jobs.train_retriever import train_retriever
from ray_jobs.tune_llm import tune_llm

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_two_workers_train_what_one_process_trains(finished_run, tmp_path):
    workers = finished_run.ray.model_copy(update={"train_workers": 2, "cpus_per_train_worker": 0.5, "torch_threads": 1})
    llm = finished_run.llm.model_copy(update={"batch_tokens": 1024})  # a batch for each worker
    settings = finished_run.model_copy(update={"workspace": str(tmp_path / "workspace"), "ray": workers, "llm": llm})
    alone = Workspace(finished_run.workspace)

    prepare_data(settings)
    retriever, llm, heads = (job(settings) for job in (train_retriever, tune_llm, train_exit_heads))

    expected = alone.open("retriever").metrics
    assert retriever.metrics["num_epochs"] == expected["num_epochs"]
    assert retriever.metrics["validation_loss"] == pytest.approx(expected["validation_loss"], abs=1e-4)
    assert llm.metrics["num_answers"] == alone.open("llm").metrics["num_answers"]
    assert 0.3 < llm.metrics["validation_log_loss"] < 1.5
    assert heads.metrics["validation_loss"] <= heads.metrics["validation_loss_untrained"]
    assert {path.name for path in (tmp_path / "workspace").iterdir()} == {"dataset", "retriever", "llm", "exit_heads"}
