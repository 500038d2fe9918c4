"""What a user sees when something is wrong: one clear line, exit code 2, nothing half-written."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from optirag_core.artifacts import Workspace
from optirag_core.runs.reader import read_artifact
from ray_jobs.command import run_job
from ray_jobs.explain import explain
from ray_jobs.pipeline import pipeline
from ray_jobs.prepare_data import prepare_data
from ray_jobs.score import score
from ray_jobs.session import SUBMITTED
from ray_jobs.train_exit_heads import train_exit_heads
from ray_jobs.tune_llm import tune_llm
from tests.finished_run import tiny_settings

pytestmark = pytest.mark.ray


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a job as its command line would: returns exit code and what it wrote to stderr."""

    def run(job, settings, *arguments: str, needs: tuple[str, ...] = ()) -> tuple[int, str]:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["job", "--config", str(config), *arguments])
        try:
            run_job(job, arguments=needs)
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err.strip().splitlines()[-1]
        return 0, ""

    return run


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*")) if folder.exists() else set()


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        (prepare_data, ("--dataset.min_histori", "2"), "did you mean dataset.min_history?"),
        (
            prepare_data,
            ("--dataset.source", "bookcrossing"),
            "dataset.source bookcrossing reads raw files: give --data",
        ),
        (prepare_data, ("--dataset.source", "yelp", "--data", "/no/such/folder"), "no folder /no/such/folder"),
        (tune_llm, (), "has no dataset: run `python -m ray_jobs.prepare_data`"),
        (score, ("--stray",), "expected pairs --section.key value"),
        (train_exit_heads, ("--exit_heads.layers", "[3, 5]"), "must lie below llm.scratch.shape.num_layers 5"),
    ],
)
def test_one_line_and_exit_code_2(run, tmp_path, job, arguments, message):
    workspace = tmp_path / "workspace"

    code, line = run(job, tiny_settings(workspace), *arguments)

    assert code == 2
    assert message in line
    assert files_below(workspace) == set()


def test_a_wrong_column_is_named(run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    pq.write_table(pa.table({"user_id": ["u"], "item": ["i"], "rating": [1.0]}), own / "interactions.parquet")
    pq.write_table(pa.table({"item_id": ["i"], "title": ["t"]}), own / "items.parquet")
    workspace = tmp_path / "workspace"

    code, line = run(prepare_data, tiny_settings(workspace), "--dataset.source", "tables", "--data", str(own))

    assert code == 2
    assert "'item_id'" in line and "interactions.parquet" in line
    assert files_below(workspace) == set()


def test_an_answer_word_of_two_tokens_stops_before_training(run, finished_run):
    before = files_below(Path(finished_run.workspace))

    code, line = run(tune_llm, finished_run, "--prompt.answer_yes", "affirmative!")

    assert code == 2
    assert "PromptError" in line and "expected 1" in line
    assert files_below(Path(finished_run.workspace)) == before


def test_an_llm_with_too_few_layers_is_refused(run, finished_run):
    llm = Workspace(finished_run.workspace).open("llm").path
    before = files_below(Path(finished_run.workspace))

    code, line = run(
        train_exit_heads, finished_run,
        "--llm.init", "pretrained", "--llm.pretrained.path", str(llm), "--exit_heads.layers", "[3, 30]",
    )  # fmt: skip

    assert code == 2
    assert "exit_heads.layers [3, 30] reach layer 30, but the LLM has 5 layers" in line
    assert files_below(Path(finished_run.workspace)) == before


def test_an_llm_with_too_short_a_context_stops_before_training(run, finished_run):
    llm = Workspace(finished_run.workspace).open("llm").path
    before = files_below(Path(finished_run.workspace))

    code, line = run(
        tune_llm,
        finished_run,
        "--llm.init",
        "pretrained",
        "--llm.pretrained.path",
        str(llm),
        "--prompt.max_tokens",
        "2049",
    )

    assert code == 2
    assert "prompt.max_tokens 2049 exceeds the LLM's context of 2048 tokens" in line
    assert files_below(Path(finished_run.workspace)) == before


@pytest.mark.thorough
def test_a_pretrained_llm_is_tuned_with_lora(run, finished_run, tmp_path, capsys):
    llm = Workspace(finished_run.workspace).open("llm")
    own = finished_run.model_copy(update={"workspace": str(tmp_path / "workspace")})

    code, _ = run(
        pipeline, own,
        "--llm.init", "pretrained", "--llm.pretrained.path", str(llm.path), "--llm.pretrained.max_steps", "2",
    )  # fmt: skip

    assert code == 0
    assert Workspace(own.workspace).open("llm").metrics["num_parameters"] == llm.metrics["num_parameters"]


def test_explain_shows_the_prompt_and_why_it_stopped(run, finished_run, capsys):
    workspace = Workspace(finished_run.workspace)
    pair = read_artifact(workspace.open("scores")).to_pylist()[0]
    title = pq.read_table(workspace.open("dataset").path / "items.parquet", filters=[("item_id", "=", pair["item_id"])])

    explain(finished_run, user=pair["user_id"], item=pair["item_id"])

    shown = capsys.readouterr().out
    assert f"{title['title'][0].as_py()}***" in shown
    assert f"p(yes) = {pair['score']:.4f}" in shown
    assert f"layer {pair['exit_layer']}" in shown


@pytest.mark.parametrize(
    ("address", "workspace", "message"),
    [
        ("local", "w", "ray.address is local, but `ray job submit` runs this on a cluster: add --ray.address auto"),
        ("auto", "working_dir_files/_ray_pkg_1/runs/mine", "workspace mine lies in the job's working directory"),
        ("auto", "w", ""),
    ],
)
def test_what_cannot_work_in_a_submitted_job_is_refused(run, tmp_path, monkeypatch, address, workspace, message):
    monkeypatch.setenv(SUBMITTED, "{}")

    code, line = run(prepare_data, tiny_settings(tmp_path / workspace), "--ray.address", address)

    assert (code, message in line) == (2 if message else 0, True)
    assert (tmp_path / workspace).exists() == (not message)
