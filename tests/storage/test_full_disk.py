"""A disk that runs full, on a small file system of the kernel's own."""

import os

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageFull
from optirag_core.storage.base import open_storage

SIZE = 64 * 2**10


pytestmark = pytest.mark.parametrize("small_disk", [SIZE], indirect=True)


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("operation", ["write", "create", "upload"])
def test_nothing_is_torn_on_a_full_disk(small_disk, tmp_path, operation):
    storage = open_storage(str(small_disk), StorageSettings())
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE // 2))
    storage.write("kept", b"kept")
    storage.write("half", source.read_bytes())
    content = source.read_bytes()

    def put(path):
        if operation == "upload":
            storage.upload(source, path)
        else:
            getattr(storage, operation)(path, content)

    before = everything(small_disk)
    for path in ("new", "half") if operation != "create" else ("new",):
        with pytest.raises(StorageFull, match=rf"no space left for .*/{path}: free some and run the same command"):
            put(path)
        assert everything(small_disk) == before
    storage.delete("half")
    put("new")
    assert storage.read("new") == content
    assert storage.read("kept") == b"kept"


def test_a_download_to_a_full_disk(storage, small_disk, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * SIZE))
    storage.upload(source, "large")
    with pytest.raises(StorageFull, match="no space left for"):
        storage.download("large", small_disk / "large")
    assert everything(small_disk) == {}
    source.write_bytes(b"small")
    storage.upload(source, "small")
    storage.download("small", small_disk / "small")
    assert everything(small_disk) == {"small": b"small"}


def test_an_artifact_that_does_not_fit(small_disk, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_bytes(os.urandom(SIZE // 4))
    workspace = Workspace(str(small_disk))
    described = {"config": {}, "parents": {}, "metrics": {}}
    saved = workspace.save("llm", "v1", files, **described)
    before = everything(small_disk)
    (files / "b").write_bytes(os.urandom(SIZE))
    for version in ("v1", "v2"):
        with pytest.raises(StorageFull):
            workspace.save("llm", version, files, **described)
        assert everything(small_disk) == before
    assert workspace.open("llm").digest == saved.digest
    (files / "b").write_bytes(b"small")
    assert set(workspace.save("llm", "v2", files, **described).manifest["files"]) == {"a", "b"}
