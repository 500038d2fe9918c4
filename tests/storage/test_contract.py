"""What every place must do, over a local folder and a bucket."""

import itertools
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError
from optirag_core.storage.base import Storage, is_local, open_storage

PATHS = ["top", "a/one", "a/b/two", "a b/ü #?+&%.txt", "ab/three"]


def test_what_is_written_is_read(storage):
    for number, path in enumerate(PATHS):
        storage.write(path, f"{number}".encode())
    storage.write("empty", b"")
    assert [storage.read(path) for path in PATHS] == [b"0", b"1", b"2", b"3", b"4"]
    assert storage.read("empty") == b""


def test_what_is_not_there(storage):
    assert storage.read("absent") is None
    assert storage.read("no/such/folder") is None
    assert not storage.exists("absent")
    assert storage.list("absent") == storage.list("") == []
    storage.delete("absent")


def test_write_replaces(storage):
    storage.write("file", b"a longer first text")
    storage.write("file", b"second")
    assert storage.read("file") == b"second"


def test_a_file_exists_and_a_folder_does_not(storage):
    storage.write("folder/file", b"x")
    assert storage.exists("folder/file")
    assert not storage.exists("folder")
    assert not storage.exists("folder/fil")


def test_list_is_sorted_and_of_whole_names(storage):
    for path in reversed(PATHS):
        storage.write(path, b"x")
    assert storage.list("") == sorted(PATHS)
    assert storage.list("a") == storage.list("a/") == ["a/b/two", "a/one"]
    assert storage.list("a/b") == ["a/b/two"]
    assert storage.list("t") == []


@pytest.mark.slow
def test_list_goes_on_after_a_page(storage):
    paths = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda path: storage.write(path, b""), paths))
    assert storage.list("many") == paths


def test_delete(storage):
    storage.write("a/one", b"1")
    storage.write("a/two", b"2")
    storage.delete("a/one")
    assert storage.list("") == ["a/two"]
    assert storage.read("a/one") is None


@pytest.mark.parametrize("size", [0, 1000, 20 * 2**20 + 1])
def test_upload_and_download(storage, tmp_path, size):
    """The largest one travels in several parts."""
    source, target = tmp_path / "source", tmp_path / "below" / "target"
    source.write_bytes(os.urandom(size))
    storage.upload(source, "deep/file")
    storage.download("deep/file", target)
    assert target.read_bytes() == source.read_bytes()
    assert storage.read("deep/file") == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_upload_and_download_replace(storage, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    target.write_bytes(b"an older and longer text")
    storage.write("file", b"an older and longer text")
    source.write_bytes(b"new")
    storage.upload(source, "file")
    storage.download("file", target)
    assert storage.read("file") == target.read_bytes() == b"new"


def test_a_failed_download_leaves_no_file(storage, tmp_path):
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    for target in (tmp_path / "target", kept):
        with pytest.raises(StorageError, match=r"download .*/absent: .*no such file"):
            storage.download("absent", target)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]
    assert kept.read_bytes() == b"kept"


def test_a_failed_upload_leaves_no_file(storage, tmp_path):
    storage.write("kept", b"kept")
    for path in ("file", "kept"):
        with pytest.raises(StorageError, match="No such file"):
            storage.upload(tmp_path / "absent", path)
    assert storage.list("") == ["kept"]
    assert storage.read("kept") == b"kept"


def test_create_returns_what_is_there(storage):
    assert storage.create("a/lock", b"first") == b"first"
    assert storage.create("a/lock", b"second") == b"first"
    assert storage.create("a/lock", b"first") == b"first"
    assert storage.read("a/lock") == b"first"
    storage.delete("a/lock")
    assert storage.create("a/lock", b"third") == b"third"
    assert storage.list("") == ["a/lock"]


def test_what_is_created_is_durable_with_its_name(tmp_path, monkeypatch):
    """Of the winner and of who comes second: the file's content first, then the folders that lead to it."""
    synced, fsync = [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    place = open_storage(str(tmp_path), StorageSettings())
    for content, folders in ((b"first", ["a/b", "a", "."]), (b"second", ["a/b"])):
        synced.clear()
        assert place.create("a/b/lock", content) == b"first"
        assert synced[0].startswith("a/b/.part-") and synced[1:] == folders


def test_of_16_threads_one_creates(storage):
    contents = [f"thread {number}".encode() * 100 for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        for race in range(5):
            seen = list(threads.map(storage.create, itertools.repeat(f"race-{race}"), contents))
            assert len(set(seen)) == 1
            assert storage.read(f"race-{race}") == seen[0]
            assert seen[0] in contents


def _create(storage: Storage, path: str, content: bytes) -> bytes:
    return storage.create(path, content)


def test_of_4_processes_one_creates(storage):
    """A pickled place works in another process."""
    storage.list("")  # it holds an open connection, which must stay here
    contents = [f"process {number}".encode() for number in range(4)]
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        for race in range(3):
            tasks = [(storage, f"race-{race}", content) for content in contents]
            seen = processes.starmap(_create, tasks, chunksize=1)
            assert len(set(seen)) == 1
            assert storage.read(f"race-{race}") == seen[0]


def test_a_forked_process_opens_its_own_connection(storage):
    storage.write("file", b"before")
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = all(storage.read("file") == b"before" for _ in range(10))
        finally:
            os._exit(0 if right else 1)  # nothing of the test session may go on in here
    assert all(storage.read("file") == b"before" for _ in range(10))
    assert os.waitpid(child, 0)[1] == 0


def test_a_place_is_pickled_with_its_uri(storage):
    storage.write("file", b"x")
    again = pickle.loads(pickle.dumps(storage))
    assert again.uri == storage.uri
    assert again.read("file") == b"x"


def test_two_places_of_one_root_do_not_see_each_other(storage):
    storage.write("file", b"x")
    settings = StorageSettings()
    assert open_storage(f"{storage.uri}2", settings).list("") == []
    assert open_storage(storage.uri, settings).list("") == ["file"]
    assert open_storage(f"{storage.uri}/", settings).uri == storage.uri


def test_which_uris_are_local():
    assert is_local("/a/b") and is_local("a/b") and is_local("file:///a")
    assert not is_local("s3://bucket/a")


def test_a_file_uri_is_a_path(tmp_path):
    open_storage(f"file://{tmp_path}/x", StorageSettings()).write("file", b"1")
    assert (Path(tmp_path) / "x" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("uri", ["gs://bucket/a", "http://host/a", "s3://key:secret@bucket/a", "s3://", "s3:///prefix"])
def test_uris_that_name_no_place(uri):
    with pytest.raises(StorageError, match=r"no place|credentials|names no bucket") as refused:
        open_storage(uri, StorageSettings())
    assert "secret" not in str(refused.value)
