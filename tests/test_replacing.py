"""A folder's files change all or not at all."""

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.run import StorageSettings
from optirag_core.lineage import changed
from optirag_core.manifest import describe
from optirag_core.replacing import ASIDE, finish_replacing, replace_files
from optirag_core.storage.base import open_storage
from tests.erasure.dying import Killed, dying
from tests.storage.conftest import s3_storage, storage

__all__ = ["s3_storage", "storage"]

OLD, NEW = ("old a", "old b"), ("new a", "old b")


@pytest.fixture
def files(tmp_path):
    """Folders of the old files a and b, and of the new a."""
    for folder, names in (("old", "ab"), ("new", "a")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(f"{folder} {name}")
    return tmp_path / "old", tmp_path / "new"


def saved(storage, files):
    """The artifact as it was, and the manifest as it will be."""
    artifact = Workspace(storage.uri).save("llm", "v1", files[0], config={}, parents={}, metrics={})
    return changed(artifact.manifest, files={**artifact.manifest["files"], **describe(files[1])})


def state(storage):
    """What a reader finds, where it fits the manifest."""
    artifact = Workspace(storage.uri).open("llm")
    return tuple((artifact.path / name).read_text() for name in "ab")


def test_files_change_and_nothing_is_left_aside(storage, files):
    manifest = saved(storage, files)
    storage.write("llm/v1/stray", b"")

    replace_files(storage, "llm/v1", files[1], manifest)

    assert state(storage) == NEW
    assert storage.list("llm/v1") == [f"llm/v1/{name}" for name in ("a", "b", "manifest.json")]
    assert storage.list(ASIDE) == []


def killed_at_every_step(storage, files, *, after):
    """What a reader finds after each death and the next call."""
    outcomes = []
    while True:
        manifest = saved(storage, files)
        mortal = dying(open_storage(storage.uri, StorageSettings()), len(outcomes) + 1, after=after)
        try:
            replace_files(mortal, "llm/v1", files[1], manifest)
        except Killed:
            finish_replacing(storage)
            outcomes.append(state(storage))
            assert storage.list(ASIDE) == []
        else:
            return outcomes


def test_killed_at_any_step_it_has_not_begun_or_is_finished_later(tmp_path, files):
    """upload aside, record; upload, manifest, remove the record, remove what is aside"""
    storage = open_storage(str(tmp_path / "workspace"), StorageSettings())
    assert killed_at_every_step(storage, files, after=False) == [OLD] * 2 + [NEW] * 4
    assert killed_at_every_step(storage, files, after=True) == [OLD] + [NEW] * 5


@pytest.mark.s3
@pytest.mark.thorough
def test_killed_at_any_step_in_a_bucket(s3_storage, files):
    assert killed_at_every_step(s3_storage, files, after=False) == [OLD] * 2 + [NEW] * 4
    assert killed_at_every_step(s3_storage, files, after=True) == [OLD] + [NEW] * 5
