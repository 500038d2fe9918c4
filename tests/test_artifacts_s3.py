"""A workspace in a bucket: what `tests/test_artifacts.py` tests of a folder, and one copy per machine."""

import json
import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt, ArtifactError, ArtifactMissing, StorageError
from optirag_core.manifest import MANIFEST, seal
from optirag_core.storage.base import open_storage
from optirag_core.storage.cache import cache_folder, remove_unused
from tests.storage.faulty_proxy import FaultyProxy

pytestmark = pytest.mark.s3
FILES = {"weights.bin": bytes(range(256)) * 10, "deep/info ü#1.json": b'{"rows": 3}', "empty": b""}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Each test is a machine of its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)  # it is read once per process


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "made"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def workspace(s3_bucket):
    return Workspace(f"{s3_bucket}/a/workspace")


@pytest.fixture
def saved(workspace, files):
    return save(workspace, files)


@pytest.fixture
def stored(workspace):
    return open_storage(workspace.uri, StorageSettings())


def save(workspace, files, version="v1"):
    return workspace.save("llm", version, files, config={"seed": 0}, parents={"dataset": "d" * 64}, metrics={"auc": 1})


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def entries():
    return [path for path in cache_folder().iterdir() if path.is_dir()]


def test_round_trip(workspace, saved, stored):
    opened = Workspace(workspace.uri).open("llm")
    assert content(opened.path) == FILES
    assert (opened.version, opened.digest, opened.manifest) == ("v1", saved.digest, saved.manifest)
    assert stored.list("") == sorted(["llm/LATEST", "llm/v1/manifest.json", *(f"llm/v1/{name}" for name in FILES)])


def test_a_bucket_and_a_folder_hold_the_same(saved, files, tmp_path):
    assert save(Workspace(str(tmp_path / "local")), files).digest == saved.digest


def test_has_latest_select(workspace, files):
    assert not workspace.has("llm")
    assert workspace.latest("llm") is None
    for version in ("v1", "v2"):
        save(workspace, files, version)
        assert workspace.latest("llm") == workspace.open("llm").version == version
    workspace.select("llm", "v1")
    assert workspace.latest("llm") == "v1"
    assert workspace.has("llm") and workspace.has("llm", "v2") and not workspace.has("llm", "v3")


@pytest.mark.parametrize("version", [None, "v2", "", "..", "../llm/v1", "v1/", "v\0"])
def test_a_missing_artifact_names_the_job(workspace, files, version):
    if version:
        save(workspace, files)
    assert not workspace.has("llm", version)
    with pytest.raises(ArtifactMissing, match=r"has no llm.*run `python -m ray_jobs.tune_llm`"):
        workspace.open("llm", version)


def test_without_manifest_it_is_no_artifact(workspace, saved, stored):
    stored.delete("llm/v1/manifest.json")
    assert not workspace.has("llm")
    with pytest.raises(ArtifactMissing):
        workspace.open("llm")


def test_a_missing_file_is_found(workspace, saved, stored):
    (saved.path / "weights.bin").unlink()
    stored.delete("llm/v1/weights.bin")
    with pytest.raises(ArtifactCorrupt, match=r"s3://.*llm/v1/weights\.bin is missing, the manifest lists it"):
        workspace.open("llm")
    assert not any(".staging" in path.name for path in cache_folder().iterdir())


@pytest.mark.parametrize("name", ["weights.bin", "deep/info ü#1.json"])
def test_a_flipped_bit_in_the_bucket_is_found(workspace, saved, stored, name, monkeypatch, tmp_path):
    damaged = bytearray(FILES[name])
    damaged[3] ^= 8
    stored.write(f"llm/v1/{name}", bytes(damaged))
    assert content(workspace.open("llm").path) == FILES  # the copy at hand is sound
    (tmp_path / "another machine").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "another machine"))
    with pytest.raises(ArtifactCorrupt, match=r"s3://.* differs from its manifest \(size or sha256\); make"):
        workspace.open("llm")
    assert entries() == []


def test_a_flipped_bit_in_the_manifest_is_found(workspace, saved, stored):
    intact = stored.read("llm/v1/manifest.json")
    for place in random.Random(0).sample(range(len(intact)), 40):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << (place % 8)
        stored.write("llm/v1/manifest.json", bytes(damaged))
        with pytest.raises(ArtifactError):
            workspace.open("llm")


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no manifest"])
def test_a_damaged_copy_is_made_anew(workspace, saved, damage):
    file = saved.path / "weights.bin"
    if damage == "flip":
        file.write_bytes(b"\1" + FILES["weights.bin"][1:])
    elif damage == "truncate":
        file.write_bytes(b"")
    elif damage == "delete":
        file.unlink()
    else:
        (saved.path / MANIFEST).unlink()
    opened = workspace.open("llm")
    assert opened.path == saved.path
    assert content(opened.path) == FILES
    assert (opened.path / MANIFEST).is_file()


def test_a_copy_is_not_downloaded_again(workspace, saved, stored):
    for name in FILES:
        stored.delete(f"llm/v1/{name}")
    assert content(workspace.open("llm").path) == FILES
    assert [path.name for path in entries()] == [f"llm-v1-{saved.manifest['checksum'][:12]}"]


def test_copies_that_nobody_opens_are_removed(workspace, files):
    for version in ("unused", "used"):
        save(workspace, files, version)
    killed = cache_folder() / ".staging-llm-other"
    killed.mkdir()
    for copy in (*cache_folder().glob("llm-*/"), killed):
        os.utime(copy, (0, time.time() - 15 * 86400))
    workspace.open("llm", "used")
    save(workspace, files, "new")

    assert sorted(copy.name.split("-")[1] for copy in cache_folder().iterdir() if copy.is_dir()) == ["new", "used"]
    assert workspace.open("llm", "unused").path.is_dir()


def test_many_may_remove_copies_at_once():
    for number in range(300):
        copy = cache_folder() / f"llm-{number}"
        copy.mkdir()
        os.utime(copy, (0, 0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove_unused, [14.0] * 8))  # raises what one of them raised
    assert entries() == []


def test_only_listed_files_are_downloaded(workspace, saved, stored):
    stored.write("llm/v1/unlisted.bin", b"of another attempt")
    (saved.path / "weights.bin").unlink()
    assert set(content(workspace.open("llm").path)) == set(FILES)


def test_the_same_version_again_replaces_the_older(workspace, saved, files):
    (files / "weights.bin").rename(files / "renamed.bin")
    again = save(workspace, files)
    assert set(content(again.path)) == {"renamed.bin", "deep/info ü#1.json", "empty"}
    assert workspace.open("llm").digest == again.digest != saved.digest


def test_a_failed_save_is_no_artifact(workspace, files):
    (files / "zz-link").symlink_to(files / "absent")
    with pytest.raises(StorageError, match="zz-link"):
        save(workspace, files)
    assert not workspace.has("llm", "v1")
    assert workspace.latest("llm") is None


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "", "."])
def test_a_manifest_that_reaches_outside_is_refused(workspace, saved, stored, name, tmp_path):
    hostile = {**saved.manifest, "files": {name: {"sha256": "0" * 64, "size": 1}}}
    stored.write("llm/v1/manifest.json", json.dumps(seal(hostile)).encode())
    with pytest.raises(ArtifactCorrupt, match="lies outside its folder; do not trust this artifact"):
        workspace.open("llm")
    assert not list(tmp_path.rglob("outside"))


def test_a_cache_of_somebody_else_is_refused(workspace, saved, monkeypatch, tmp_path):
    cache_folder().chmod(0o777)
    with pytest.raises(StorageError, match="is not this user's alone: remove it, or point TMPDIR"):
        workspace.open("llm")
    for other in ("link", "file"):
        folder = tmp_path / other
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        place = folder / f"optirag-cache-{os.getuid()}"
        place.symlink_to(tmp_path) if other == "link" else place.write_text("")
        with pytest.raises(StorageError):
            workspace.open("llm")


def _open(uri: str) -> str:
    return str(Workspace(uri).open("llm").path)


def test_many_processes_download_once(workspace, saved, s3_endpoint, monkeypatch, tmp_path):
    """Counted where the requests pass by."""
    (tmp_path / "another machine").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "another machine"))
    with FaultyProxy(s3_endpoint, mode="delay", rate=1.0, delay_s=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with multiprocessing.get_context("spawn").Pool(4) as processes:
            paths = processes.map(_open, [workspace.uri] * 8, chunksize=1)
    assert len(set(paths)) == 1
    assert content(Path(paths[0])) == FILES
    reads = 8 * 2  # LATEST and the manifest
    assert proxy.requests <= reads + 2 * len(FILES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "rate"),
    [("unavailable", 0.1), ("unavailable", 0.3), ("truncate", 0.3), ("lost_reply", 0.3), ("hang", 0.1)],
)
def test_a_workspace_behind_a_failing_server(s3_bucket, s3_endpoint, files, monkeypatch, mode, rate):
    for number in range(20):
        (files / f"part-{number}").write_bytes(os.urandom(10_000))
    started = time.monotonic()
    with FaultyProxy(s3_endpoint, mode=mode, rate=rate, seed=5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        workspace = Workspace(s3_bucket, StorageSettings(connect_timeout_s=2.0, read_timeout_s=1.0))
        opened = save(workspace, files)
    assert content(opened.path) == content(files)
    assert proxy.fired > 0
    assert time.monotonic() - started < 60
