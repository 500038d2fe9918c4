import importlib.util
import json
import random
import threading

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from optirag_core.artifacts import MADE_BY, Workspace
from optirag_core.errors import ArtifactCorrupt, ArtifactError, ArtifactMismatch, ArtifactMissing, StorageError
from optirag_core.manifest import MANIFEST, seal

CONFIG = {"seed": 0, "layers": [3, 4]}
METRICS = {"auc": 0.75}


@pytest.fixture
def files(tmp_path):
    """What a job hands over: two files, one of them in a folder."""
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "info.json").write_text('{"rows": 3}', encoding="utf-8")
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace(str(tmp_path / "work space #1"))


@pytest.fixture
def saved(workspace, files):
    return workspace.save("llm", "v1", files, config=CONFIG, parents={"dataset": "d" * 64}, metrics=METRICS)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def save(workspace, files, kind="llm", version="v1", config=CONFIG, parents=None):
    return workspace.save(kind, version, files, config=config, parents=parents or {}, metrics={})


def test_round_trip(workspace, saved, files):
    opened = Workspace(workspace.uri).open("llm")
    assert content(opened.path) == content(files)
    assert (opened.kind, opened.version, opened.digest, opened.metrics) == ("llm", "v1", saved.digest, METRICS)
    assert opened.manifest["config"] == CONFIG
    assert opened.manifest["parents"] == {"dataset": "d" * 64}
    assert set(opened.manifest["files"]) == {"weights.bin", "deep/info.json"}
    assert opened.manifest["files"]["weights.bin"]["size"] == 256


def test_a_file_uri_is_the_local_folder(tmp_path, files):
    folder = tmp_path / "plain"
    assert save(Workspace(f"file://{folder}"), files).digest == Workspace(str(folder)).open("llm").digest


def test_digest_tells_files_config_parents_and_kind_apart(workspace, files):
    first = save(workspace, files)
    assert save(workspace, files, version="v2").digest == first.digest
    others = [
        save(workspace, files, version="v3", config={"seed": 1}),
        save(workspace, files, version="v4", parents={"dataset": "e"}),
        save(workspace, files, kind="retriever"),
    ]
    (files / "weights.bin").write_bytes(b"other")
    others.append(save(workspace, files, version="v5"))
    assert len({first.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("name", ["weights.bin", "deep/info.json"])
@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_flipped_bit_is_found(workspace, saved, name, place):
    flip(saved.path / name, place, bit=3)
    with pytest.raises(ArtifactCorrupt, match=rf"{name} differs from its manifest \(size or sha256\); make"):
        workspace.open("llm")


@pytest.mark.parametrize("data", [b"", bytes(range(255)), bytes(range(256)) + b"\0"])
def test_a_file_of_another_size_is_found(workspace, saved, data):
    (saved.path / "weights.bin").write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=r"weights\.bin differs"):
        workspace.open("llm")


@pytest.mark.parametrize("replacement", ["nothing", "a folder"])
def test_a_missing_file_is_found(workspace, saved, replacement):
    (saved.path / "weights.bin").unlink()
    if replacement == "a folder":
        (saved.path / "weights.bin").mkdir()
    with pytest.raises(ArtifactCorrupt, match=r"weights\.bin is missing, the manifest lists it"):
        workspace.open("llm")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"kind": "llm"}', "\x00\x01"])
def test_a_manifest_that_is_none(workspace, saved, text):
    (saved.path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json is damaged: not a manifest"):
        workspace.open("llm")


@pytest.mark.parametrize(
    "key", ["kind", "files", "config", "parents", "digest", "schema_version", "version", "metrics", "checksum"]
)
def test_a_manifest_without_a_key(workspace, saved, key):
    manifest = {name: value for name, value in saved.manifest.items() if name != key}
    (saved.path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match="is damaged"):
        workspace.open("llm")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "retriever"),
        ("files", {}),
        ("config", {"seed": 1}),
        ("parents", {"dataset": "e"}),
        ("digest", "0" * 64),
        ("metrics", {"answer_ids": [1, 2]}),
        ("version", "v2"),
    ],
)
def test_a_manifest_that_was_edited(workspace, saved, key, value):
    (saved.path / MANIFEST).write_text(json.dumps({**saved.manifest, key: value}), encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match="its checksum does not match its content"):
        workspace.open("llm")


def test_a_manifest_of_another_schema(workspace, saved):
    other = seal({**saved.manifest, "schema_version": 99})
    (saved.path / MANIFEST).write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ArtifactMismatch, match="has schema 99, this code reads 2"):
        workspace.open("llm")


def test_a_bit_flipped_anywhere_in_a_manifest_never_passes_for_another_artifact(workspace, saved):
    """Everything that identifies the artifact; its metrics, version and dates are notes."""
    path = saved.path / MANIFEST
    intact = path.read_bytes()
    for place in range(len(intact)):
        flip(path, place, bit=place % 8)
        try:
            manifest = workspace.open("llm").manifest
        except ArtifactError:
            manifest = saved.manifest
        assert [manifest[key] for key in ("kind", "files", "config", "parents", "digest")] == [
            saved.manifest[key] for key in ("kind", "files", "config", "parents", "digest")
        ]
        path.write_bytes(intact)


def test_500_random_damages_are_all_stopped_before_anything_is_parsed(tmp_path, workspace):
    """Bits flipped and ends cut off, in the file formats of real artifacts and in the manifest itself."""
    files = tmp_path / "real"
    files.mkdir()
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"user_id": [f"u{row}" for row in range(300)], "p": rng.random(300)}), files / "a.parquet")
    save_file({"weight": torch.from_numpy(rng.random((16, 16)))}, files / "model.safetensors")
    index = faiss.IndexFlatIP(8)
    index.add(rng.random((50, 8), dtype=np.float32))
    faiss.write_index(index, str(files / "users.faiss"))
    (files / "config.json").write_text('{"layers": [3, 4], "name": "Größe"}', encoding="utf-8")
    path = save(workspace, files).path
    damaged = sorted(file for file in path.rglob("*") if file.is_file())
    assert len(damaged) == 5
    draw = random.Random(0)
    for _ in range(500):
        file = draw.choice(damaged)
        intact = file.read_bytes()
        place = draw.randrange(len(intact))
        if draw.random() < 0.3:
            file.write_bytes(intact[:place])
        else:
            flip(file, place, bit=draw.randrange(8))
        with pytest.raises(ArtifactError):
            workspace.open("llm")
        file.write_bytes(intact)
    assert workspace.open("llm").version == "v1"


def test_a_damaged_latest_names_no_artifact(workspace, saved):
    for text in (b"", b"..", b"../llm/v1", b"v1\0", b"\xff\xfe", b"v1\nv2", b"w1"):
        (saved.path.parent / "LATEST").write_bytes(text)
        assert not workspace.has("llm")
        with pytest.raises(ArtifactMissing):
            workspace.open("llm")


def test_an_artifact_of_another_parent_is_refused(workspace, files):
    dataset = save(workspace, files, kind="dataset")
    retriever = save(workspace, files, kind="retriever", parents={"dataset": dataset.digest})
    retriever.require_parent(dataset)
    (files / "weights.bin").write_bytes(b"other rows")
    other = save(workspace, files, kind="dataset", version="v2")
    with pytest.raises(ArtifactMismatch, match=r"retriever/v1 was made from dataset \w{12}, .* run train_retriever"):
        retriever.require_parent(other)


def test_an_artifact_without_that_parent_is_refused(workspace, files):
    dataset, heads = save(workspace, files, kind="dataset"), save(workspace, files, kind="exit_heads")
    with pytest.raises(ArtifactMismatch, match="was made from dataset none, but the one at hand is"):
        heads.require_parent(dataset)


@pytest.mark.parametrize(("kind", "job"), MADE_BY.items())
def test_a_missing_artifact_names_the_job_that_makes_it(workspace, kind, job):
    assert not workspace.has(kind)
    with pytest.raises(ArtifactMissing, match=rf"has no {kind}: run `python -m ray_jobs\.{job}` with"):
        workspace.open(kind)
    assert importlib.util.find_spec(f"ray_jobs.{job}")


def test_a_missing_version_is_named(workspace, saved):
    with pytest.raises(ArtifactMissing, match="has no llm/v2: run"):
        workspace.open("llm", "v2")
    with pytest.raises(ArtifactMissing, match="has no dataset: run"):
        workspace.open("dataset")


def test_a_folder_without_a_manifest_is_no_artifact(workspace, saved):
    (saved.path / MANIFEST).unlink()
    assert not workspace.has("llm")
    with pytest.raises(ArtifactMissing):
        workspace.open("llm")


def test_the_newest_is_opened_and_another_can_be_selected(workspace, files):
    assert workspace.latest("llm") is None
    for version in ("v1", "v2"):
        save(workspace, files, version=version)
        assert workspace.latest("llm") == version
    assert workspace.open("llm").version == "v2"
    workspace.select("llm", "v1")
    assert workspace.latest("llm") == workspace.open("llm").version == "v1"
    assert workspace.open("llm", "v2").version == "v2"
    assert workspace.latest("dataset") is None


def test_the_same_version_again_replaces_the_older(workspace, files):
    save(workspace, files)
    (files / "weights.bin").rename(files / "renamed.bin")
    assert content(save(workspace, files).path) == content(files)


def test_a_failed_save_leaves_nothing(workspace, files):
    (files / "zz-link").symlink_to(files / "absent")  # the copy fails at it, behind the other files
    with pytest.raises(StorageError):
        save(workspace, files)
    assert not workspace.has("llm")
    assert workspace.latest("llm") is None
    assert [path for path in (files.parent / "work space #1").rglob("*") if path.name != "llm"] == []


def test_a_failed_save_leaves_the_artifacts_before_it(workspace, saved, files):
    before = {path: path.read_bytes() for path in saved.path.parent.rglob("*") if path.is_file()}
    (files / "zz-link").symlink_to(files / "absent")
    for version in ("v1", "v2"):
        with pytest.raises(StorageError):
            save(workspace, files, version=version)
    assert {path: path.read_bytes() for path in saved.path.parent.rglob("*") if path.is_file()} == before
    assert workspace.open("llm").digest == saved.digest


def test_saving_leaves_the_given_folder_and_no_other_names(workspace, files):
    given = content(files)
    saved = save(workspace, files)
    assert content(files) == given
    assert {path.name for path in saved.path.parent.iterdir()} == {"v1", "LATEST"}
    assert {path.name for path in saved.path.iterdir()} == {"weights.bin", "deep", MANIFEST}


def test_nothing_half_written_is_ever_visible(workspace, files):
    """A reader that opens all the time, while a larger artifact is written, sees it missing or whole."""
    for number in range(40):
        (files / f"part-{number}.bin").write_bytes(bytes(50_000))
    versions = [f"v{number}" for number in range(10)]
    done, seen = threading.Event(), []

    def read():
        while not done.is_set():
            for version in versions:
                try:
                    seen.append(len(workspace.open("llm", version).manifest["files"]))
                except ArtifactMissing:
                    seen.append(0)
                except ArtifactError as error:
                    seen.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions:
        save(workspace, files, version=version)
    done.set()
    reader.join()
    assert set(seen) <= {0, 42}
