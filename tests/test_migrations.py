"""Artifacts as earlier versions wrote them, made here, are read by this one after a migration."""

import pyarrow as pa
import pytest
import torch

from optirag_core.artifacts import Workspace
from optirag_core.config.data import IndexSettings
from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt, ArtifactMismatch
from optirag_core.lineage import HELD_ERASED, manifests
from optirag_core.manifest import MANIFEST, SCHEMA_VERSION, manifest_text, parse_manifest, seal
from optirag_core.migrations import migrate
from optirag_core.retrieval.index import ROWS_FILE, UserIndex
from optirag_core.retrieval.vectors import load_fold_in, save_fold_in, save_vectors
from optirag_core.storage.base import open_storage
from tests.erasure.dying import Killed, dying

USERS, ITEMS = pa.array([f"u{n}" for n in range(6)]), pa.array(["i0", "i1", "i2"])
LEASE_S = 0.2


@pytest.fixture
def uri(tmp_path):
    """A retriever without fold-in vectors, an index without rows, and a child of both."""
    return _made(tmp_path, "fm")


def _made(tmp_path, method):
    workspace = Workspace(str(tmp_path / "w"))
    vectors = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    folder = tmp_path / "retriever"
    folder.mkdir()
    save_vectors(folder, "user", USERS, vectors)
    save_vectors(folder, "item", ITEMS, torch.arange(12.0).view(3, 4))
    config = {"retriever": {"method": method}}
    retriever = workspace.save("retriever", "v1", folder, config=config, parents={}, metrics={})
    folder = tmp_path / "index"
    folder.mkdir()
    UserIndex.build(USERS, vectors, IndexSettings()).save(folder)
    (folder / ROWS_FILE).unlink()  # as `save` was
    parents = {"retriever": retriever.digest}
    index = workspace.save("index", "v1", folder, config={}, parents=parents, metrics={})
    workspace.save("llm", "v1", folder, config={}, parents={**parents, "index": index.digest}, metrics={})
    return workspace.uri


def run(uri, storage=None):
    settings = StorageSettings()
    return migrate(Workspace(uri, settings), storage or open_storage(uri, settings), lease_s=LEASE_S)


def require_current(uri):
    """Everything is read, and fits."""
    retriever, index, llm = (Workspace(uri).open(kind) for kind in ("retriever", "index", "llm"))
    index.require_parent(retriever)
    llm.require_parent(index)
    llm.require_parent(retriever)
    near = UserIndex.load(retriever.path, index.path).similar("u0", 5)
    assert {neighbour.user_id for neighbour in near} == {f"u{n}" for n in range(1, 6)}
    assert torch.equal(load_fold_in(retriever.path), torch.arange(12.0).view(3, 4))


def test_what_an_earlier_version_wrote_is_refused_and_then_read(uri):
    with pytest.raises(ArtifactCorrupt, match="an earlier version made it"):
        UserIndex.load(Workspace(uri).open("retriever").path, Workspace(uri).open("index").path)

    migrated = run(uri)

    assert (migrated.changed, migrated.to_be_made_anew) == (("index/v1", "retriever/v1"), {})
    require_current(uri)
    assert not any(HELD_ERASED in each for each in manifests(open_storage(uri, StorageSettings())).values())


def test_again_there_is_nothing_to_do(uri):
    run(uri)
    before = manifests(open_storage(uri, StorageSettings()))
    assert run(uri).changed == ()
    assert manifests(open_storage(uri, StorageSettings())) == before


def test_what_cannot_be_computed_is_to_be_made_anew_and_stays(tmp_path):
    uri = _made(tmp_path, "gcn")
    migrated = run(uri)
    assert migrated.changed == ("index/v1",)
    assert (
        "were not kept; batch jobs work without: run train_retriever again" in migrated.to_be_made_anew["retriever/v1"]
    )
    assert load_fold_in(Workspace(uri).open("retriever").path) is None


def test_a_current_retriever_stays(tmp_path):
    uri = _made(tmp_path, "gcn")
    folder = tmp_path / "retriever"
    save_fold_in(folder, torch.ones(3, 4))
    config = {"retriever": {"method": "gcn"}}
    Workspace(uri).save("retriever", "v2", folder, config=config, parents={}, metrics={})
    assert "retriever/v2" not in {*run(uri).changed, *run(uri).to_be_made_anew}


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_finishes_when_run_again(tmp_path, after):
    step = 0
    while True:
        step += 1
        (tmp_path / str(step)).mkdir()
        uri = _made(tmp_path / str(step), "fm")
        try:
            run(uri, dying(open_storage(uri, StorageSettings()), step, after=after))
        except Killed:
            run(uri)
            require_current(uri)
        else:
            break
    assert step > 12


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (SCHEMA_VERSION + 1, "a newer version of OptiRAG wrote it, use that one or make the artifact again"),
        (SCHEMA_VERSION - 1, "an older version of OptiRAG wrote it, use that one or make the artifact again"),
    ],
)
def test_a_manifest_of_another_schema_is_refused(uri, schema, words):
    storage = open_storage(uri, StorageSettings())
    path = f"llm/v1/{MANIFEST}"
    other = seal({**parse_manifest(storage.read(path), path), "schema_version": schema})
    storage.write(path, manifest_text(other).encode())
    with pytest.raises(ArtifactMismatch, match=words):
        Workspace(uri).open("llm")
    with pytest.raises(ArtifactMismatch, match=words):
        run(uri)
