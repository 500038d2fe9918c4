"""Runs on their storage: the newest one, what was committed, what is left over, what is damaged."""

import random
import time

import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing, RunIncomplete
from optirag_core.runs.reader import read_scores, score_files
from optirag_core.runs.run import Run
from optirag_core.storage.local import LocalStorage
from tests.runs.small import expected_scores, in_order, run_small, scores_of, small_requests

REQUESTS = small_requests()


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def test_a_committed_run_is_an_artifact_and_its_files_are_plain_parquet(storage):
    run_small(storage, "night", REQUESTS)

    artifact = Workspace(storage.uri).open("scores")

    assert (artifact.version, artifact.manifest["parents"]) == ("night", {"llm": "1" * 64})
    assert sum(pq.read_metadata(file).num_rows for file in score_files(f"{storage.uri}/scores")) == len(
        read_scores(f"{storage.uri}/scores/night")
    )


def test_latest_is_the_newest_commit_and_older_runs_stay(storage):
    run_small(storage, "monday", REQUESTS)
    run_small(storage, "tuesday", REQUESTS.slice(3))

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS.slice(3)))
    assert scores_of(storage, "monday") == pytest.approx(expected_scores(REQUESTS))


def test_an_older_run_asked_for_again_is_the_latest_only_where_that_is_wanted(storage):
    first = run_small(storage, "monday", REQUESTS)
    time.sleep(1)  # a manifest's time is in seconds
    run_small(storage, "tuesday", REQUESTS.slice(3))

    assert run_small(storage, "monday", REQUESTS, keep_newer=True) == first
    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS.slice(3)))
    run_small(storage, "monday", REQUESTS)
    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_a_run_with_a_pointer_of_its_own_is_found_by_it_and_readers_keep_theirs(storage):
    run_small(storage, "monday", REQUESTS)
    run_small(storage, "measured", REQUESTS.slice(3), pointer="LATEST-test")

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))
    assert scores_of(storage, "LATEST-test") == pytest.approx(expected_scores(REQUESTS.slice(3)))
    with pytest.raises(ArtifactMissing, match=r"scores/LATEST-other has no committed run"):
        scores_of(storage, "LATEST-other")


def test_a_damaged_latest_run_does_not_keep_the_next_one_back(storage):
    run_small(storage, "monday", REQUESTS)
    (storage.root / "scores/monday/manifest.json").write_text("{}")

    run_small(storage, "tuesday", REQUESTS, keep_newer=True)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_nothing_is_left_over_of_a_run_that_is_not_committed(storage):
    with pytest.raises(RunIncomplete):
        run_small(storage, "night", REQUESTS, max_reject_share=0.0)

    assert Run(storage, "night").leftovers() == []


def test_every_flipped_bit_of_a_committed_run_is_found(storage):
    manifest = run_small(storage, "night", REQUESTS)
    files = [f"scores/night/{path}" for path in manifest["files"] if path.endswith(".parquet")]
    generator, found = random.Random(0), 0
    for _ in range(400):
        file = storage.root / generator.choice([*files, "scores/night/manifest.json"])
        before = file.read_bytes()
        place = generator.randrange(8 * len(before))
        damaged = bytearray(before)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            for kind in ("scores", "rejects"):
                read_scores(f"{storage.uri}/scores", kind=kind)
        except ArtifactCorrupt:
            found += 1
        file.write_bytes(before)

    assert found == 400


def test_a_missing_file_of_a_committed_run_is_named(storage):
    [file, *_] = score_files(f"{run_small(storage, 'night', REQUESTS) and storage.uri}/scores")
    (storage.root / file).unlink()

    with pytest.raises(ArtifactCorrupt, match=r"-scores.parquet is missing"):
        read_scores(f"{storage.uri}/scores")


def test_a_damaged_shard_is_not_scored(storage):
    def damaged(run, shards):
        (storage.root / run.folder / "shards/000001.parquet").write_bytes(b"PAR1")
        return in_order(run, shards)

    with pytest.raises(ArtifactCorrupt, match=r"shards/000001\.parquet differs from the plan"):
        run_small(storage, "night", REQUESTS, execute=damaged)
