"""Digests down to the last child."""

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.errors import ArtifactMismatch
from optirag_core.lineage import HELD_ERASED, REPLACES, changed, manifests, meant_by, relink
from optirag_core.manifest import MANIFEST, manifest_text
from optirag_core.storage.local import LocalStorage


@pytest.fixture
def chain(tmp_path):
    """dataset <- evidence <- llm, and a model of another lineage."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "f").write_text("x")
    workspace, parents = Workspace(str(tmp_path / "w")), {}
    for kind in ("dataset", "evidence", "llm"):
        made = workspace.save(kind, "v1", tmp_path / "files", config={}, parents=parents, metrics={})
        parents = {**parents, kind: made.digest}
    workspace.save("llm", "other", tmp_path / "files", config={}, parents={"dataset": "0" * 64}, metrics={})
    return workspace, LocalStorage(tmp_path / "w")


def change(storage, folder, **marks):
    manifest = manifests(storage)[folder]
    files = {"f": {**manifest["files"]["f"], "note": "another file"}}
    left = changed(manifest, files=files, **marks)
    storage.write(f"{folder}/{MANIFEST}", manifest_text(left).encode())
    return manifest["digest"], left


def test_a_change_keeps_the_digests_that_there_were(chain):
    _, storage = chain
    first, left = change(storage, "dataset/v1")
    assert left["digest"] != first and left[REPLACES] == [first] and left["version"] == "v1"
    again = changed(left, files={"f": {"sha256": "2"}})
    assert again[REPLACES] == [first, left["digest"]]


def test_no_change_is_the_same_manifest(chain):
    manifest = manifests(chain[1])["llm/v1"]
    assert changed(manifest, files=manifest["files"], parents=manifest["parents"]) is manifest


def test_children_name_the_new_digest_and_get_new_ones_themselves(chain):
    workspace, storage = chain
    untouched = manifests(storage)["llm/other"]
    change(storage, "dataset/v1")
    with pytest.raises(ArtifactMismatch):
        workspace.open("evidence").require_parent(workspace.open("dataset"))

    relink(storage)

    dataset, evidence, llm = (workspace.open(kind, "v1") for kind in ("dataset", "evidence", "llm"))
    evidence.require_parent(dataset)
    llm.require_parent(dataset)
    llm.require_parent(evidence)
    assert manifests(storage)["llm/other"] == untouched
    before = manifests(storage)
    relink(storage)
    assert manifests(storage) == before


def test_who_was_made_from_what_held_an_erased_user_is_marked(chain):
    _, storage = chain
    change(storage, "evidence/v1", held_erased=True)
    change(storage, "dataset/v1")  # by a migration
    relink(storage)
    marks = {folder: each.get(HELD_ERASED) for folder, each in manifests(storage).items()}
    assert marks == {"dataset/v1": None, "evidence/v1": True, "llm/v1": True, "llm/other": None}


def test_an_artifact_is_found_by_any_digest_that_it_had(chain):
    _, storage = chain
    first, left = change(storage, "dataset/v1")
    found = manifests(storage)
    assert meant_by(found, "dataset", first) == meant_by(found, "dataset", left["digest"]) == "dataset/v1"
    assert meant_by(found, "evidence", first) is None
    assert meant_by(found, "dataset", "0" * 64) is None


def test_what_is_no_artifact_is_passed_over(chain):
    _, storage = chain
    names = set(manifests(storage))
    for path in (".replacing/new/dataset/v1", ".training/llm-v1/step-3", "dataset/v1/deeper", "dataset/.staging-0"):
        storage.write(f"{path}/{MANIFEST}", b"{}")
    assert set(manifests(storage)) == names
