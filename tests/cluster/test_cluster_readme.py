"""The commands of `cluster/README.md`: Ray has them, jobs and settings parse, and no job is missing."""

import re
import shlex
from pathlib import Path

import click
import pytest
from ray.scripts.scripts import cli

from ray_jobs.command import parse
from ray_jobs.pipeline import STAGES

ROOT = Path(__file__).parents[2]
README = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("    ")]
[SETTINGS] = re.findall(r'^    SETTINGS="(.*)"$', README, re.MULTILINE)
OF_RAY = [command for command in COMMANDS if command.startswith("ray ")]
JOBS = [command for command in COMMANDS if "python -m ray_jobs." in command]
ARGUMENTS = {
    "explain": ("user", "item"),
    "compare": ("run_a", "run_b"),
    "rollback": ("run",),
    "erase_user": ("user_id",),
}


@pytest.mark.parametrize("command", OF_RAY)
def test_ray_has_the_command_and_its_options(command):
    _, *words = shlex.split(command.split(" -- ")[0].replace("cluster/", f"{ROOT}/cluster/"))
    if " -- " in command:
        words += ["--", "true"]

    group: click.Group = cli
    while isinstance(group, click.Group):
        name, *words = words
        group = group.commands[name]
    group.make_context(name, words)  # raises where an option is unknown


@pytest.mark.parametrize("command", JOBS)
def test_a_job_parses_and_runs_on_the_cluster(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command.replace("$SETTINGS", SETTINGS))
    module, *options = words[words.index("-m") + 1 :]

    settings, _ = parse(options, arguments=ARGUMENTS.get(module.removeprefix("ray_jobs."), ()))

    assert settings.ray.address == "auto"
    assert settings.workspace.startswith("s3://")


def test_every_job_is_there():
    named = {re.search(r"ray_jobs\.(\w+)", job)[1] for job in JOBS}

    others = {"pipeline", "migrate", "train_baselines", "reproduce", *ARGUMENTS}
    assert {stage.__name__ for stage in STAGES} | others == named
