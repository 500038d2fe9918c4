"""Artifacts are opened together or not at all: lineage, prompt and pins, each broken once on purpose."""

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.data import EvidenceSettings
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactMismatch
from optirag_core.inference.opening import TRAINED, Pin, open_artifacts
from optirag_core.recipes import (
    Recipe,
    evidence_recipe,
    exit_heads_recipe,
    exit_policy_recipe,
    index_recipe,
    llm_recipe,
    retriever_recipe,
)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=str(tmp_path / "workspace"))


@pytest.fixture
def workspace(settings, files):
    """All trained artifacts of one lineage."""
    workspace = Workspace(settings.workspace)
    digests = {"dataset": Recipe("dataset", {}, {}).save(workspace, files, {}).digest}
    dataset = dict(digests)
    for kind, recipe in (
        ("evidence", evidence_recipe),
        ("retriever", lambda settings, _: retriever_recipe(settings, dataset)),
        ("index", lambda settings, parents: index_recipe(settings, {k: parents[k] for k in ("dataset", "retriever")})),
        ("llm", lambda settings, parents: llm_recipe(settings, parents, None)),
        ("exit_heads", exit_heads_recipe),
        ("exit_policy", exit_policy_recipe),
    ):
        digests[kind] = recipe(settings, dict(digests)).save(workspace, files, {}).digest
    return workspace


def test_artifacts_of_one_lineage_are_opened(workspace, settings):
    artifacts = open_artifacts(settings, *TRAINED)

    assert tuple(artifacts.digests) == TRAINED
    assert artifacts["llm"].digest == workspace.open("llm").digest
    assert artifacts.pins["llm"] == Pin(artifacts["llm"].version, artifacts["llm"].digest)


def test_heads_of_another_llm_are_refused(workspace, settings, files):
    other = llm_recipe(settings.model_copy(update={"seed": 1}), open_artifacts(settings, *TRAINED[:4]).digests, None)
    other.save(workspace, files, {})

    with pytest.raises(ArtifactMismatch, match=r"exit_heads/\w+ was made from llm .* run train_exit_heads again"):
        open_artifacts(settings, *TRAINED)


def test_a_policy_of_other_heads_is_refused(workspace, settings, files):
    heads = settings.exit_heads.model_copy(update={"epochs": 3})
    other = settings.model_copy(update={"exit_heads": heads})
    exit_heads_recipe(other, open_artifacts(settings, *TRAINED[:5]).digests).save(workspace, files, {})

    with pytest.raises(ArtifactMismatch, match=r"exit_policy/\w+ was made from exit_heads .* run calibrate_exits"):
        open_artifacts(settings, *TRAINED)


def test_an_index_of_another_retriever_is_refused(workspace, settings, files):
    retriever_recipe(settings.model_copy(update={"seed": 1}), open_artifacts(settings, "dataset").digests).save(
        workspace, files, {}
    )

    with pytest.raises(ArtifactMismatch, match=r"index/\w+ was made from retriever .* run train_retriever again"):
        open_artifacts(settings, "dataset", "retriever", "index")


def test_an_llm_of_other_evidence_is_refused(workspace, settings, files):
    other = settings.model_copy(update={"evidence": EvidenceSettings(attributes=("author",))})
    evidence_recipe(other, open_artifacts(settings, "dataset").digests).save(workspace, files, {})

    open_artifacts(settings, *TRAINED[:4])  # retriever and index are made beside it
    with pytest.raises(ArtifactMismatch, match=r"llm/\w+ was made from evidence .* run tune_llm again"):
        open_artifacts(settings, *TRAINED)


def test_an_llm_of_a_prompt_without_evidence_is_refused_where_it_is_shown(workspace, settings):
    other = settings.model_copy(update={"evidence": EvidenceSettings(prompt=True)})

    with pytest.raises(ArtifactMismatch, match=r"evidence\.prompt was False, now it is True; run tune_llm again"):
        open_artifacts(other, *TRAINED)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("template", "books", r"llm/\w+ was made with another prompt: prompt\.template was \w{12}, now it is \w{12}"),
        ("max_history", 3, r"prompt\.max_history was 15, now it is 3; run tune_llm again, or restore the setting"),
        ("num_similar_users", 0, r"prompt\.num_similar_users was 4, now it is 0"),
    ],
)
def test_an_llm_of_another_prompt_is_refused(workspace, settings, name, value, message):
    other = settings.model_copy(update={"prompt": settings.prompt.model_copy(update={name: value})})

    open_artifacts(other, *TRAINED[:4])
    with pytest.raises(ArtifactMismatch, match=message):
        open_artifacts(other, *TRAINED)


def test_heads_of_another_prompt_on_the_right_llm_are_refused(workspace, settings, files):
    other = settings.model_copy(update={"prompt": settings.prompt.model_copy(update={"template": "books"})})
    exit_heads_recipe(other, open_artifacts(settings, *TRAINED[:5]).digests).save(workspace, files, {})

    with pytest.raises(ArtifactMismatch, match=r"exit_heads/\w+ was made with another prompt: prompt\.template"):
        open_artifacts(settings, *TRAINED)


@pytest.mark.parametrize(
    ("config", "parents", "message"),
    [
        (
            {},
            ("dataset", "evidence", "retriever", "index", "llm"),
            r"was made with another prompt: prompt\.template was None",
        ),
        ("recipe", ("dataset", "evidence", "retriever", "index"), "was made from llm none"),
    ],
    ids=["no prompt", "no LLM"],
)
def test_heads_that_do_not_say_what_made_them_are_refused(workspace, settings, files, config, parents, message):
    digests = open_artifacts(settings, *TRAINED[:5]).digests
    recipe = exit_heads_recipe(settings, digests)
    planted = Recipe("exit_heads", config or {"a": 1}, {kind: digests[kind] for kind in parents})
    if config == "recipe":
        planted = Recipe("exit_heads", recipe.config, planted.parents)
    planted.save(workspace, files, {})

    with pytest.raises(ArtifactMismatch, match=message):
        open_artifacts(settings, *TRAINED)


def test_a_damaged_artifact_is_made_again(workspace, settings, files, caplog):
    recipe = retriever_recipe(settings, open_artifacts(settings, "dataset").digests)
    (recipe.made(workspace).path / "weights.bin").write_bytes(b"other")

    assert recipe.made(workspace) is None
    assert "differs from its manifest" in caplog.text
    assert recipe.save(workspace, files, {}).digest == recipe.made(workspace).digest


def test_another_process_opens_what_is_pinned_and_not_the_newest(workspace, settings, files):
    pins = open_artifacts(settings, "dataset", "retriever").pins
    newer = retriever_recipe(settings.model_copy(update={"seed": 1}), open_artifacts(settings, "dataset").digests)
    assert newer.save(workspace, files, {}).version == workspace.latest("retriever") != pins["retriever"].version

    assert open_artifacts(settings, "dataset", "retriever", pins=pins).pins == pins


def test_an_artifact_made_anew_under_its_version_is_not_the_pinned_one(workspace, settings, files):
    pins = open_artifacts(settings, "dataset", "retriever").pins
    (files / "weights.bin").write_bytes(b"other weights")
    retriever_recipe(settings, open_artifacts(settings, "dataset").digests).save(workspace, files, {})

    with pytest.raises(ArtifactMismatch, match=r"retriever/\w+ has changed since the job began: run the job again"):
        open_artifacts(settings, "dataset", "retriever", pins=pins)
