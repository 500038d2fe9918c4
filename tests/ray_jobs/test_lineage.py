"""Heads or an LLM that were made with another prompt than the settings give: no job goes on with them."""

import shutil
from pathlib import Path

import pytest

from optirag_core import prompting
from optirag_core.engine.heads import HEADS_FILE
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.recipes import exit_heads_recipe, prompt_config
from ray_jobs.evaluate import evaluate
from ray_jobs.explain import explain
from ray_jobs.score import score
from ray_jobs.train_exit_heads import train_exit_heads
from ray_jobs.train_loop import start_worker
from tests.finished_run import changed

pytestmark = pytest.mark.ray
TEMPLATES = Path(prompting.__file__).parent / "templates"
OTHER = r"exit_heads/\w+ was made with another prompt: prompt\.template was \w{12}, now it is \w{12}"


@pytest.fixture(scope="module")
def heads_of_another_prompt(own_workspace, tmp_path_factory):
    """Heads that were trained on another template, on the very LLM at hand: lineage alone does not see it."""
    artifacts = open_artifacts(own_workspace, *TRAINED)
    parents = {kind: digest for kind, digest in artifacts.digests.items() if kind != "exit_heads"}
    planted = exit_heads_recipe(changed(own_workspace, prompt={"template": "generic"}), parents)
    files = tmp_path_factory.mktemp("heads")
    shutil.copy(artifacts["exit_heads"].path / HEADS_FILE, files)
    planted.save(artifacts.workspace, files, {})
    return own_workspace


def test_score_refuses_them(heads_of_another_prompt):
    with pytest.raises(ArtifactMismatch, match=OTHER):
        score(heads_of_another_prompt)


def test_explain_refuses_them(heads_of_another_prompt):
    with pytest.raises(ArtifactMismatch, match=OTHER):
        explain(heads_of_another_prompt, user="1", item="1")


def test_evaluate_refuses_them(heads_of_another_prompt):
    with pytest.raises(ArtifactMismatch, match=OTHER):
        evaluate(heads_of_another_prompt)


@pytest.mark.parametrize("job", [train_exit_heads, score, evaluate])
def test_an_llm_of_another_prompt_is_refused(finished_run, job):
    other = changed(finished_run, prompt={"template": "generic"})

    with pytest.raises(ArtifactMismatch, match=r"llm/\w+ was made with another prompt.*run tune_llm again, or restore"):
        job(other)


def test_explain_refuses_an_llm_of_another_prompt(finished_run):
    with pytest.raises(ArtifactMismatch, match=r"llm/\w+ was made with another prompt"):
        explain(changed(finished_run, prompt={"max_history": 2}), user="1", item="1")


def test_a_training_worker_with_another_template_than_the_driver_stops(finished_run, tmp_path):
    """As where the file is changed, or is another one on the worker's machine."""
    source = tmp_path / "mine.jinja"
    source.write_text((TEMPLATES / "books.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    settings = changed(finished_run, prompt={"template": str(source)})
    pins = open_artifacts(settings, "dataset").pins
    config = {"settings": settings.model_dump(mode="json"), "pins": pins, "kind": "llm"}
    config["prompt"] = prompt_config(settings)
    source.write_text(source.read_text(encoding="utf-8").replace("Instruction", "Task"), encoding="utf-8")

    with pytest.raises(ArtifactMismatch, match=r"mine\.jinja is another file on this worker than on the driver"):
        start_worker(config)
