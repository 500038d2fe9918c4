"""A canary user is in every kind of artifact; afterwards nowhere, and everybody else is where they were."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from optirag_core.data.dataset import Dataset
from optirag_core.data.mapped import open_mapped
from optirag_core.erasure.erase import Erasure
from optirag_core.erasure.user import journal_file, token_of
from optirag_core.errors import ErasureUnfinished, RunOwned
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import Stored
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.model import MODEL_FILE
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import load_vectors
from optirag_core.runs.lease import owned
from optirag_core.runs.reader import read_scores
from tests.erasure.dying import EXIT_CODE, LEASE_S, Killed, dying, erase
from tests.erasure.workspaces import ALL, EVENT, USER, dataset_with, hits, make_workspace, opened
from tests.events.small import collecting


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Never written to: tests work on copies."""
    folder = tmp_path_factory.mktemp("original")
    make_workspace(str(folder / "workspace"), folder)
    return folder


@pytest.fixture
def uri(original, tmp_path) -> str:
    shutil.copytree(original / "workspace", tmp_path / "workspace")
    return str(tmp_path / "workspace")


@pytest.fixture(scope="module")
def erased(original, tmp_path_factory) -> tuple[str, Erasure]:
    uri = str(tmp_path_factory.mktemp("erased") / "workspace")
    shutil.copytree(original / "workspace", uri)
    return uri, erase(uri)


def test_the_canary_is_everywhere_before_and_nowhere_after(original, erased):
    before = Counter(path.split("/")[0] for path in hits(str(original / "workspace")) if not path.startswith("/"))
    kinds = ("dataset", "evidence", "retriever", "exit_features", "comparisons", "scores", "events")
    kinds += (".training", "reproduction")
    assert {kind: before[kind] > 0 for kind in kinds} == dict.fromkeys(kinds, True)

    assert hits(erased[0]) == []


def test_what_was_done_is_said(erased):
    uri, erasure = erased
    assert erasure.events == 2
    assert erasure.rewritten == [
        *(f"{kind}/v1" for kind in ("dataset", "evidence", "retriever", "index", "comparisons", "exit_features")),
        "scores/monday", "scores/tuesday",
    ]  # fmt: skip
    assert erasure.removed == ["scores/broken"]
    fitted = ("evidence", "exit_features", "exit_heads", "exit_policy", "llm", "retriever")
    assert sorted(erasure.learned) == [f"{kind}/v1" for kind in fitted]
    assert erasure.jobs == [
        "fit_evidence", "train_retriever", "tune_llm", "exit_features", "train_exit_heads", "calibrate_exits",
    ]  # fmt: skip
    entry = json.loads((Path(uri) / journal_file(token_of(USER))).read_text())
    assert entry["finished_at"] and entry["events"] == 2


def test_all_artifacts_still_fit_each_other(erased):
    workspace, _ = opened(erased[0])
    by_kind = {kind: workspace.open(kind) for kind in (*ALL, "reports")}
    for kind, artifact in by_kind.items():
        for parent in artifact.manifest["parents"]:
            artifact.require_parent(by_kind[parent])
        assert artifact.version == "v1", kind
    assert workspace.open("scores", "monday").manifest["parents"] == {"dataset": by_kind["dataset"].digest}


def test_everybody_elses_interactions_are_as_they_were(original, erased):
    dataset = Dataset.load(opened(erased[0])[0].open("dataset").path)
    expected = dataset_with(original, without=True)
    assert dataset.interactions.equals(expected.interactions)
    assert dataset.users.equals(expected.users)
    assert dataset.items.equals(expected.items)
    assert dataset.info["erased_users"] == 1


def test_counts_are_those_of_data_without_the_user_and_the_regression_stays(original, erased, tmp_path):
    expected = dataset_with(original, without=True)
    Evidence.of(expected.interactions, expected.items, []).save(tmp_path)
    evidence = opened(erased[0])[0].open("evidence").path
    for file in tmp_path.glob("*.arrow"):
        assert open_mapped(evidence / file.name).equals(open_mapped(file)), file.name
    trained = original / "workspace" / "evidence" / "v1" / MODEL_FILE
    assert (evidence / MODEL_FILE).read_bytes() == trained.read_bytes()


def test_everybody_elses_vectors_are_as_they_were_and_their_neighbours_those_without_the_user(original, erased):
    workspace, before = opened(erased[0])[0], opened(str(original / "workspace"))[0]
    retriever, trained = workspace.open("retriever").path, before.open("retriever").path
    ids, vectors = load_vectors(retriever, "user")
    old_ids, old_vectors = load_vectors(trained, "user")
    others = np.array([user != USER for user in old_ids.to_pylist()])
    assert ids.to_pylist() == [user for user in old_ids.to_pylist() if user != USER]
    assert np.array_equal(vectors.numpy(), old_vectors.numpy()[others])

    index = UserIndex.load(retriever, workspace.open("index").path)
    old_index = UserIndex.load(trained, before.open("index").path)
    for user in ids.to_pylist()[:10]:
        expected = [near for near in old_index.similar(user, 6) if near.user_id != USER][:5]
        assert index.similar(user, 5) == expected
    assert index.similar(USER, 5) == []


def test_everybody_elses_scores_are_as_they_were(original, erased):
    for run in ("monday", "tuesday"):
        for kind in ("scores", "rejects"):
            before = read_scores(f"{original}/workspace/scores/{run}", kind=kind)
            after = read_scores(f"{erased[0]}/scores/{run}", kind=kind)
            assert after.equals(before.filter(pc.not_equal(before["user_id"], USER)))
    features = opened(erased[0])[0].open("exit_features").path
    assert [pq.read_table(file)["user_id"].to_pylist() for file in sorted(features.glob("*.parquet"))] == [
        ["u1"],
        ["u2"],
    ]


def test_the_log_keeps_its_positions_and_takes_no_erased_event_again(erased, original, tmp_path):
    shutil.copytree(erased[0], tmp_path / "workspace")
    log, collected = collecting(opened(str(tmp_path / "workspace"))[1])
    log.read()
    assert (log.position, collected.ids) == (3, ["e1", "e3"])

    again = [UserEvent(EVENT, USER, "i1", 5.0, None), UserEvent("e5", "u", "i1", 5.0, None)]
    assert log.append(again) == [Stored.CONFLICT, Stored.STORED]
    assert (log.position, collected.ids) == (4, ["e1", "e3", "e5"])


def test_a_run_that_others_were_asked_for_stays(erased):
    assert (Path(erased[0]) / "scores" / "unconcerned" / "plan.json").is_file()


def test_erasing_again_changes_nothing(erased, tmp_path):
    shutil.copytree(erased[0], tmp_path / "workspace")
    uri = str(tmp_path / "workspace")

    again = erase(uri)

    assert (again.events, again.rewritten, again.removed) == (0, [], [])
    assert again.learned == erased[1].learned


def test_a_user_who_is_nowhere_changes_no_artifact(uri):
    nobody = erase(uri, "nobody at all")
    assert (nobody.events, nobody.rewritten, nobody.removed, nobody.learned) == (0, [], [], [])


def test_the_next_user_goes_as_well_and_lineage_holds(uri):
    erase(uri)
    workspace, _ = opened(uri)
    other = load_vectors(workspace.open("retriever").path, "user")[0][0].as_py()

    erase(uri, other)

    by_kind = {kind: workspace.open(kind) for kind in ALL}
    for artifact in by_kind.values():
        for parent in artifact.manifest["parents"]:
            artifact.require_parent(by_kind[parent])
    index = UserIndex.load(by_kind["retriever"].path, by_kind["index"].path)
    assert other not in index and len(index.rows) == len(index.user_ids)


def test_an_artifact_whose_parent_is_gone_can_be_used_by_nobody_and_goes(uri):
    workspace, _ = opened(uri)
    workspace.remove("dataset")

    assert {"evidence/v1"} <= set(erase(uri).removed)
    assert hits(uri) == []


def test_another_erasure_has_to_be_finished_first(uri):
    with pytest.raises(Killed):
        erase(uri, storage=dying(opened(uri)[1], 2))

    with pytest.raises(ErasureUnfinished, match=r"erasures/[0-9a-f]{32}\.json: the erasure of another user was begun"):
        erase(uri, "somebody else")
    erase(uri)
    erase(uri, "somebody else")


def test_a_run_that_is_being_scored_is_left_alone(uri):
    with owned(opened(uri)[1], "scores/broken", LEASE_S), pytest.raises(RunOwned, match=r"scores/broken is already"):
        erase(uri)
    erase(uri)
    assert hits(uri) == []


def finishes_after_dying(original: Path, uri: str, step: int) -> bool:
    """Whether an erasure that dies before this step finishes when it is run again; False beyond the last step."""
    shutil.copytree(original / "workspace", uri)
    try:
        erase(uri, storage=dying(opened(uri)[1], step))
    except Killed:
        died = True
    else:
        died = False
    erase(uri)
    assert hits(uri) == [], f"step {step}"
    workspace, _ = opened(uri)
    by_kind = {kind: workspace.open(kind) for kind in (*ALL, "reports", "comparisons")}
    for artifact in by_kind.values():
        for parent in artifact.manifest["parents"]:
            artifact.require_parent(by_kind[parent])
    for kind in ("scores", "rejects"):
        assert USER not in read_scores(f"{uri}/scores/monday", kind=kind)["user_id"].to_pylist()
    assert not [path for path in (Path(uri) / ".replacing" / "new").rglob("*") if path.is_file()]
    shutil.rmtree(uri)
    return died


@pytest.mark.parametrize("step", [3, 25, 50, 75])
def test_killed_at_some_steps_it_finishes_when_run_again(original, tmp_path, step):
    assert finishes_after_dying(original, str(tmp_path / "workspace"), step)


@pytest.mark.slow
@pytest.mark.thorough
def test_killed_at_every_step_it_finishes_when_run_again(original, tmp_path, reliability):
    """Before a step is after the one before it: a change of the storage happens as a whole."""
    step = 1
    while finishes_after_dying(original, str(tmp_path / f"workspace-{step}"), step):
        step += 1
    reliability["an erasure exits at a step"] = {"tried": step - 1, "hits": 0}
    print(f"{step - 1} steps")
    assert step > 75


@pytest.mark.slow
@pytest.mark.thorough
def test_a_process_that_exits_in_the_middle_is_taken_for_dead(original, tmp_path):
    uri = str(tmp_path / "workspace")
    shutil.copytree(original / "workspace", uri)
    command = [sys.executable, "-m", "tests.erasure.dying", uri, USER, "30"]

    assert subprocess.run(command, check=False, timeout=120).returncode == EXIT_CODE
    assert hits(uri)
    erase(uri)
    assert hits(uri) == []


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.thorough
def test_a_workspace_in_a_bucket(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    uri = f"{s3_bucket}/workspace"
    make_workspace(uri, tmp_path)
    assert hits(uri)
    with pytest.raises(Killed):
        erase(uri, storage=dying(opened(uri)[1], 20))

    erase(uri)

    assert hits(uri) == []
    assert [
        path for path in tmp_path.glob("optirag-cache-*/*") if path.is_dir() and not path.name.startswith(".")
    ] == []
