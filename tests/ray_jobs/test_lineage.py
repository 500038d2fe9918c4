"""Heads or an LLM that were made with another prompt than the settings give: no job goes on with them."""

import shutil

import pytest

from optirag_core.engine.heads import HEADS_FILE
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.recipes import exit_heads_recipe
from ray_jobs.evaluate import evaluate
from ray_jobs.explain import explain
from ray_jobs.score import score
from ray_jobs.train_exit_heads import train_exit_heads
from tests.ray_jobs.conftest import changed

pytestmark = pytest.mark.ray
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
