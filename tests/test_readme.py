"""The README's commands: they parse, name real files and real make targets, and the demo's settings run when shrunk."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config_file import load_settings
from ray_jobs.command import parse
from ray_jobs.pipeline import STAGES, pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]
JOBS = [command for command in COMMANDS if "python -m ray_jobs." in command and "--config" in command]
TARGETS = [command for command in COMMANDS if command.startswith("make ")]

OTHER_JOBS = {"explain", "pipeline", "plan", "compare", "rollback", "migrate", "erase_user"}
OTHER_JOBS |= {"train_baselines", "reproduce"}


def test_there_are_commands_to_test():
    assert len(JOBS) >= 3 and len(TARGETS) >= 2


@pytest.mark.parametrize("command", JOBS)
def test_a_job_command_names_a_job_and_valid_settings(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command.replace("DIR", str(tmp_path)))
    module = words[words.index("-m") + 1]

    settings, _ = parse(words[words.index("-m") + 2 :], arguments=("user", "item") if "explain" in module else ())

    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    assert settings.workspace


@pytest.mark.parametrize("command", TARGETS)
def test_a_make_target_exists(command):
    assert subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_table_of_jobs_is_complete():
    named = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))

    assert {stage.__name__ for stage in STAGES} | OTHER_JOBS == named


def test_every_path_that_the_readme_links_exists():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert path.startswith("http") or (ROOT / path).exists(), path


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_runs_when_shrunk(tmp_path):
    smaller = [
        ("workspace", str(tmp_path)),
        ("dataset.synthetic.num_users", "150"),
        ("llm.scratch.max_steps", "5"),
        ("retriever.max_epochs", "2"),
    ]

    pipeline(load_settings(ROOT / "ray_jobs/configs/demo.yaml", smaller))

    assert (Workspace(str(tmp_path)).open("reports").path / "report.html").is_file()
