"""From plan to commit without Ray: what is finished stays, what is not whole is not committed."""

import random
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    RunIncomplete,
    RunMismatch,
    RunOwned,
    StorageError,
)
from optirag_core.runs import run as run_module
from optirag_core.runs.attempts import write_attempt
from optirag_core.runs.reader import read_scores, score_files
from optirag_core.runs.run import Run
from optirag_core.storage.local import LocalStorage
from tests.runs.small import LEASE_S, expected_scores, in_order, run_small, score_shard, small_requests

REQUESTS = small_requests()


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def scores_of(storage, name=None):
    table = read_scores(f"{storage.uri}/scores" + (f"/{name}" if name else ""))
    rows = [((row["user_id"], row["item_id"]), row["score"]) for row in table.to_pylist()]
    assert len(rows) == len(dict(rows))
    return pytest.approx(dict(rows))


def test_every_pair_is_in_scores_or_rejects(storage):
    manifest = run_small(storage, "night", REQUESTS)

    assert scores_of(storage) == expected_scores(REQUESTS)
    rejects = read_scores(f"{storage.uri}/scores", kind="rejects")
    assert set(rejects["item_id"].to_pylist()) == {"5"}
    assert manifest["metrics"]["scored"] + manifest["metrics"]["rejected"] == 24
    assert manifest["metrics"]["rejects"] == {"unknown_item": len(rejects)}


def test_a_committed_run_is_an_artifact_and_its_files_are_plain_parquet(storage):
    run_small(storage, "night", REQUESTS)

    artifact = Workspace(storage.uri).open("scores")

    assert (artifact.version, artifact.manifest["parents"]) == ("night", {"llm": "1" * 64})
    assert sum(pq.read_metadata(file).num_rows for file in score_files(f"{storage.uri}/scores")) == len(
        read_scores(f"{storage.uri}/scores/night")
    )


def test_a_second_call_does_nothing(storage):
    first = run_small(storage, "night", REQUESTS)

    def must_not_run(run):
        def execute(shards):
            raise AssertionError

        return execute

    assert run_small(storage, "night", REQUESTS, execute=must_not_run) == first


def test_resuming_skips_finished_shards(storage):
    seen = []

    def two_then_fail(run):
        def execute(shards):
            for shard in shards[:2]:
                yield score_shard(run, shard)
            raise KeyboardInterrupt

        return execute

    def noting(run):
        def execute(shards):
            seen.extend(shard.number for shard in shards)
            yield from in_order(run)(shards)

        return execute

    with pytest.raises(KeyboardInterrupt):
        run_small(storage, "night", REQUESTS, execute=two_then_fail)
    with pytest.raises(ArtifactMissing, match="no committed run"):
        read_scores(f"{storage.uri}/scores")
    run_small(storage, "night", REQUESTS, execute=noting)

    assert seen == [2, 3]
    assert scores_of(storage) == expected_scores(REQUESTS)


def test_a_missing_shard_is_not_committed(storage):
    with pytest.raises(RunIncomplete, match=r"1 of 4 shards have no receipt, the first is shards/000003"):
        run_small(storage, "night", REQUESTS, execute=lambda run: lambda shards: in_order(run)(shards[:-1]))

    assert Run(storage, "night").manifest() is None


@pytest.mark.parametrize("damage", ["lost", "twice"])
def test_an_attempt_with_other_pairs_is_refused(storage, damage):
    def damaged(run):
        def execute(shards):
            receipt = score_shard(run, shards[0])
            [path] = [path for path in receipt.files if path.endswith("-scores.parquet")]
            scores = pq.read_table(storage.root / run.folder / path)
            rejects = pq.read_table(storage.root / run.folder / path.replace("scores", "rejects"))
            scores = scores[1:] if damage == "lost" else scores.take([0, *range(len(scores))])
            yield write_attempt(storage, run.folder, shards[0], scores, rejects, {})

        return execute

    with pytest.raises(RunIncomplete, match=r"shard 0: \d pairs asked, \d answered, and they differ"):
        run_small(storage, "night", REQUESTS, execute=damaged)


def test_the_first_receipt_of_a_shard_counts(storage):
    def twice(run):
        def execute(shards):
            for shard in shards:
                first, second = score_shard(run, shard), score_shard(run, shard)
                assert first == second
                yield second

        return execute

    run_small(storage, "night", REQUESTS, execute=twice)

    assert scores_of(storage) == expected_scores(REQUESTS)
    leftovers = Run(storage, "night").leftovers()
    assert len(leftovers) == 8  # 4 shards, scores and rejects


def test_too_many_rejects_commit_nothing_until_the_share_is_raised(storage):
    with pytest.raises(RunIncomplete, match=r"of 24 pairs were rejected, \d of them as unknown_item"):
        run_small(storage, "night", REQUESTS, max_reject_share=0.01)
    assert Run(storage, "night").manifest() is None

    run_small(storage, "night", REQUESTS, max_reject_share=0.5)

    assert scores_of(storage) == expected_scores(REQUESTS)


def test_resuming_with_another_plan_or_setting_is_refused(storage):
    run_small(storage, "night", REQUESTS)

    with pytest.raises(RunMismatch, match="plan = "):
        run_small(storage, "night", REQUESTS.slice(1))
    with pytest.raises(RunMismatch, match=r"exits\.threshold = 0\.01, now it is 0\.02"):
        run_small(storage, "night", REQUESTS, changes={"exits": {"threshold": 0.02}})


def test_latest_is_the_newest_commit_and_older_runs_stay(storage):
    run_small(storage, "monday", REQUESTS)
    run_small(storage, "tuesday", REQUESTS.slice(3))

    assert scores_of(storage) == expected_scores(REQUESTS.slice(3))
    assert scores_of(storage, "monday") == expected_scores(REQUESTS)


def test_an_older_run_asked_for_again_is_the_latest_only_where_that_is_wanted(storage):
    first = run_small(storage, "monday", REQUESTS)
    time.sleep(1)  # a manifest's time is in seconds
    run_small(storage, "tuesday", REQUESTS.slice(3))

    assert run_small(storage, "monday", REQUESTS, keep_newer=True) == first
    assert scores_of(storage) == expected_scores(REQUESTS.slice(3))
    run_small(storage, "monday", REQUESTS)
    assert scores_of(storage) == expected_scores(REQUESTS)


def test_nothing_is_left_over_of_a_run_that_is_not_committed(storage):
    with pytest.raises(RunIncomplete):
        run_small(storage, "night", REQUESTS, max_reject_share=0.0)

    assert Run(storage, "night").leftovers() == []


def test_of_two_drivers_that_both_finish_one_commits(storage, monkeypatch):
    monkeypatch.setattr(run_module, "owned", lambda *_: nullcontext(SimpleNamespace(check=lambda: None)))

    def other_first(run):
        def execute(shards):
            yield from in_order(run)(shards)
            run_small(storage, "night", REQUESTS)

        return execute

    with pytest.raises(RunOwned, match="has been committed by another driver meanwhile"):
        run_small(storage, "night", REQUESTS, execute=other_first)

    assert scores_of(storage) == expected_scores(REQUESTS)


def test_a_driver_that_was_taken_over_stops(storage):
    def slow(run):
        def execute(shards):
            yield score_shard(run, shards[0])
            storage.create(f"{run.folder}/owners/000002.json", b'{"pid": 1, "host": "other", "since": "now"}')
            time.sleep(2 * LEASE_S)
            yield score_shard(run, shards[1])

        return execute

    with pytest.raises(RunOwned, match="was taken over by process 1 on other"):
        run_small(storage, "night", REQUESTS, execute=slow)


def test_a_failing_release_does_not_hide_why_the_run_ended(storage, monkeypatch):
    def refused(path, content):
        raise StorageError(path)

    def failing(run):
        def execute(shards):
            monkeypatch.setattr(storage, "write", refused)
            raise RunIncomplete("the reason")
            yield

        return execute

    with pytest.raises(RunIncomplete, match="the reason"):
        run_small(storage, "night", REQUESTS, execute=failing)


def test_a_damaged_latest_run_does_not_keep_the_next_one_back(storage):
    run_small(storage, "monday", REQUESTS)
    (storage.root / "scores/monday/manifest.json").write_text("{}")

    run_small(storage, "tuesday", REQUESTS, keep_newer=True)

    assert scores_of(storage) == expected_scores(REQUESTS)


def test_a_run_is_not_committed_over_files_that_are_gone(storage):
    def losing(run):
        def execute(shards):
            for shard in shards:
                receipt = score_shard(run, shard)
                yield receipt
            storage.delete(f"{run.folder}/{next(iter(receipt.files))}")

        return execute

    with pytest.raises(RunIncomplete, match=r"is gone, not its receipt: remove receipts/000003\.json"):
        run_small(storage, "night", REQUESTS, execute=losing)
    storage.delete("scores/night/receipts/000003.json")
    run_small(storage, "night", REQUESTS)

    assert scores_of(storage) == expected_scores(REQUESTS)


def test_a_damaged_receipt_is_named(storage):
    with pytest.raises(RunIncomplete):
        run_small(storage, "night", REQUESTS, max_reject_share=0.0)
    file = storage.root / "scores/night/receipts/000001.json"
    file.write_bytes(file.read_bytes().replace(b'"rejected": ', b'"rejected": 1'))
    (storage.root / "scores/night/receipts/.nfs0001").touch()  # some file systems leave such

    with pytest.raises(ArtifactCorrupt, match="a receipt is damaged"):
        run_small(storage, "night", REQUESTS)


def test_a_committed_run_of_other_settings_is_not_taken_for_this_one(storage):
    run_small(storage, "night", REQUESTS)
    storage.delete("scores/night/run.json")

    with pytest.raises(RunMismatch, match="has been committed with other inputs or settings"):
        run_small(storage, "night", REQUESTS, changes={"exits": {"threshold": 0.02}})


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
    def damaged(run):
        (storage.root / run.folder / "shards/000001.parquet").write_bytes(b"PAR1")
        return in_order(run)

    with pytest.raises(ArtifactCorrupt, match=r"shards/000001\.parquet differs from the plan"):
        run_small(storage, "night", REQUESTS, execute=lambda run: lambda shards: damaged(run)(shards))
