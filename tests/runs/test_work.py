"""A driver's work from plan to commit: what is finished stays, what is not whole is not committed."""

import json
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from optirag_core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    RunIncomplete,
    RunMismatch,
    RunOwned,
    StorageError,
)
from optirag_core.evaluation.run_page import run_page
from optirag_core.runs import work as work_module
from optirag_core.runs.attempts import Receipt, write_attempt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage.local import LocalStorage
from tests.runs.small import (
    LEASE_S,
    begun,
    commit,
    expected_scores,
    in_order,
    run_small,
    score_shard,
    scores_of,
    small_requests,
)

REQUESTS = small_requests()


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def must_not_be_made(totals, **_):
    pytest.fail("a page of a committed run")


def test_every_pair_is_in_scores_or_rejects(storage):
    manifest = run_small(storage, "night", REQUESTS)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))
    rejects = read_scores(f"{storage.uri}/scores", kind="rejects")
    assert set(rejects["item_id"].to_pylist()) == {"5"}
    assert manifest["metrics"]["scored"] + manifest["metrics"]["rejected"] == 24
    assert manifest["metrics"]["rejects"] == {"unknown_item": len(rejects)}


def test_further_counts_of_the_receipts_arrive_in_the_manifest_and_on_the_page(storage):
    def counting(run, shards):
        for receipt in in_order(run, shards):
            yield replace(receipt, counts={**receipt.counts, "dropped_users": receipt.shard, "dropped_entries": 0.5})

    def reported(totals, *, seconds, resumed):
        return run_page("night", RunIdentity({}), totals, seconds=seconds, resumed=resumed)

    manifest = run_small(storage, "night", REQUESTS, execute=counting, pages=reported)

    [path] = [path for path in manifest["files"] if path.endswith("/run.json")]
    for figures in (manifest["metrics"], json.loads(storage.read(f"scores/night/{path}"))):
        assert (figures["dropped_users"], figures["dropped_entries"]) == (0 + 1 + 2 + 3, 4 * 0.5)


def test_a_committed_run_has_nothing_left_and_needs_no_driver(storage):
    first = run_small(storage, "night", REQUESTS)
    files = sorted(storage.list("scores/night"))

    with begun(storage, "night", REQUESTS) as work:
        assert work.committed
        assert (work.left, work.resumed) == ((), 24)
        assert commit(work, pages=must_not_be_made) == first

    assert sorted(storage.list("scores/night")) == files


def test_committing_twice_is_committing_once(storage):
    with begun(storage, "night", REQUESTS) as work:
        for receipt in in_order(Run(storage, "night"), work.left):
            work.add(receipt)
        assert not work.committed
        first = commit(work)
        files = sorted(storage.list("scores/night"))

        assert work.committed
        assert commit(work, pages=must_not_be_made) == first
        assert sorted(storage.list("scores/night")) == files


def test_resuming_skips_finished_shards(storage):
    def two_then_fail(run, shards):
        for shard in shards[:2]:
            yield score_shard(run, shard)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_small(storage, "night", REQUESTS, execute=two_then_fail)
    with pytest.raises(ArtifactMissing, match="no committed run"):
        read_scores(f"{storage.uri}/scores")

    with begun(storage, "night", REQUESTS) as work:
        assert [shard.number for shard in work.left] == [2, 3]
        for receipt in in_order(Run(storage, "night"), work.left):
            work.add(receipt)
        commit(work)
    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_a_page_is_told_of_all_pairs_and_of_what_this_driver_did(storage):
    told = []

    def noting(totals, **figures):
        told.append((totals.pairs, totals.shards, figures))
        return {"note.txt": b"all is well"}

    def one_then_fail(run, shards):
        yield score_shard(run, shards[0])
        raise KeyboardInterrupt

    def slowly(run, shards):
        time.sleep(0.5)
        yield from in_order(run, shards)

    with pytest.raises(KeyboardInterrupt):
        run_small(storage, "night", REQUESTS, execute=one_then_fail)
    started = time.monotonic()
    manifest = run_small(storage, "night", REQUESTS, execute=slowly, pages=noting)

    [(pairs, shards, figures)] = told
    assert (pairs, shards, figures["resumed"]) == (24, 4, 6)  # the first shard's users have 1, 2 and 3 candidates
    assert 0.5 <= figures["seconds"] < time.monotonic() - started
    [path] = [path for path in manifest["files"] if path.endswith("/note.txt")]
    assert storage.read(f"scores/night/{path}") == b"all is well"


def test_a_page_that_fails_commits_nothing_and_the_run_goes_on(storage):
    with pytest.raises(ZeroDivisionError):
        run_small(storage, "night", REQUESTS, pages=lambda totals, **_: {"share": 1 // 0})
    assert Run(storage, "night").manifest() is None

    with begun(storage, "night", REQUESTS, lease_s=60.0) as work:
        assert (work.left, work.committed) == ((), False)
        commit(work)
    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_the_lease_is_held_until_the_run_is_committed(storage):
    def others_are_kept_out(totals, **_):
        with pytest.raises(RunOwned, match="is already owned by process"), begun(storage, "night", REQUESTS):
            pass
        return {}

    run_small(storage, "night", REQUESTS, pages=others_are_kept_out)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_ends_a_driver_frees_the_run_at_once(storage, error):
    with pytest.raises(type(error)), begun(storage, "night", REQUESTS, lease_s=60.0):
        raise error

    started = time.monotonic()
    run_small(storage, "night", REQUESTS, lease_s=60.0)
    assert time.monotonic() - started < 30


def test_work_that_is_over_adds_and_commits_nothing(storage):
    with begun(storage, "night", REQUESTS) as work:
        *receipts, last = in_order(Run(storage, "night"), work.left)
        for receipt in receipts:
            work.add(receipt)

    with pytest.raises(RunOwned, match="scores/night was released by this driver"):
        work.add(last)
    with pytest.raises(RunOwned, match="scores/night was released by this driver"):
        commit(work)
    assert Run(storage, "night").manifest() is None


def test_a_missing_shard_is_not_committed(storage):
    with pytest.raises(RunIncomplete, match=r"1 of 4 shards have no receipt, the first is shards/000003"):
        run_small(storage, "night", REQUESTS, execute=lambda run, shards: in_order(run, shards[:-1]))

    assert Run(storage, "night").manifest() is None


@pytest.mark.parametrize("damage", ["lost", "twice"])
def test_an_attempt_with_other_pairs_is_refused(storage, damage):
    def damaged(run, shards):
        receipt = score_shard(run, shards[0])
        [path] = [path for path in receipt.files if path.endswith("-scores.parquet")]
        scores = pq.read_table(storage.root / run.folder / path)
        rejects = pq.read_table(storage.root / run.folder / path.replace("scores", "rejects"))
        scores = scores[1:] if damage == "lost" else scores.take([0, *range(len(scores))])
        yield write_attempt(storage, run.folder, shards[0], scores, rejects, {})

    with pytest.raises(RunIncomplete, match=r"shard 0: \d pairs asked, \d answered, and they differ"):
        run_small(storage, "night", REQUESTS, execute=damaged)


def test_the_first_receipt_of_a_shard_counts(storage):
    def twice(run, shards):
        for shard in shards:
            first, second = score_shard(run, shard), score_shard(run, shard)
            assert first == second
            yield second

    run_small(storage, "night", REQUESTS, execute=twice)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))
    leftovers = Run(storage, "night").leftovers()
    assert len(leftovers) == 8  # 4 shards, scores and rejects


def test_too_many_rejects_commit_nothing_until_the_share_is_raised(storage):
    with pytest.raises(RunIncomplete, match=r"of 24 pairs were rejected, \d of them as unknown_item"):
        run_small(storage, "night", REQUESTS, max_reject_share=0.01)
    assert Run(storage, "night").manifest() is None

    run_small(storage, "night", REQUESTS, max_reject_share=0.5)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_resuming_with_another_plan_or_setting_is_refused(storage):
    run_small(storage, "night", REQUESTS)

    with pytest.raises(RunMismatch, match="plan = "):
        run_small(storage, "night", REQUESTS.slice(1))
    with pytest.raises(RunMismatch, match=r"exits\.threshold = 0\.01, now it is 0\.02"):
        run_small(storage, "night", REQUESTS, changes={"exits": {"threshold": 0.02}})


def test_of_two_drivers_that_both_finish_one_commits(storage, monkeypatch):
    monkeypatch.setattr(work_module, "owned", lambda *_: nullcontext(SimpleNamespace(check=lambda: None)))

    def other_first(run, shards):
        yield from in_order(run, shards)
        run_small(storage, "night", REQUESTS)

    with pytest.raises(RunOwned, match="has been committed by another driver meanwhile"):
        run_small(storage, "night", REQUESTS, execute=other_first)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


def test_a_run_that_another_driver_committed_while_this_one_waited_has_nothing_left(storage, monkeypatch):
    lease, others = work_module.owned, []

    @contextmanager
    def late(*arguments):
        monkeypatch.setattr(work_module, "owned", lease)
        others.append(run_small(storage, "night", REQUESTS))
        with lease(*arguments) as held:
            yield held

    monkeypatch.setattr(work_module, "owned", late)
    with begun(storage, "night", REQUESTS) as work:
        files = sorted(storage.list("scores/night"))
        assert work.committed and not work.left
        assert commit(work, pages=must_not_be_made) == others[0]

    assert [path for path in storage.list("scores/night") if "pages/" in path] == [p for p in files if "pages/" in p]


def test_a_driver_that_was_taken_over_stops(storage):
    def slow(run, shards):
        yield score_shard(run, shards[0])
        storage.create(f"{run.folder}/owners/000002.json", b'{"pid": 1, "host": "other", "since": "now"}')
        time.sleep(2 * LEASE_S)
        yield score_shard(run, shards[1])

    with pytest.raises(RunOwned, match="was taken over by process 1 on other"):
        run_small(storage, "night", REQUESTS, execute=slow)


def test_a_driver_that_was_taken_over_after_the_last_shard_does_not_commit(storage):
    with begun(storage, "night", REQUESTS) as work:
        for receipt in in_order(Run(storage, "night"), work.left):
            work.add(receipt)
        storage.create("scores/night/owners/000002.json", b'{"pid": 1, "host": "other", "since": "now"}')
        time.sleep(2 * LEASE_S)
        with pytest.raises(RunOwned, match="was taken over by process 1 on other"):
            commit(work)

    assert Run(storage, "night").manifest() is None


def test_a_receipt_of_no_planned_shard_is_not_committed(storage):
    def one_more(run, shards):
        yield from in_order(run, shards)
        files = {"attempts/999999-scores.parquet": {"sha256": "0" * 64, "size": 1, "rows": 1}}
        yield Receipt(999_999, 1, 0, "", files, {"rejects": {}, "exits": {}})

    manifest = run_small(storage, "night", REQUESTS, execute=one_more)

    assert len([path for path in manifest["files"] if path.startswith("attempts/")]) == 2 * 4
    assert manifest["metrics"]["scored"] + manifest["metrics"]["rejected"] == 24


def test_a_receipt_of_other_pairs_is_not_committed(storage):
    def swapped(run, shards):
        first, second, *others = in_order(run, shards)
        yield from (replace(first, shard=second.shard), replace(second, shard=first.shard), *others)

    with pytest.raises(RunIncomplete, match=r"the receipt of shards/000000\.parquet is not for its pairs"):
        run_small(storage, "night", REQUESTS, execute=swapped)

    assert Run(storage, "night").manifest() is None


def test_a_failing_release_does_not_hide_why_the_run_ended(storage, monkeypatch):
    def refused(path, content):
        raise StorageError(path)

    def failing(run, shards):
        monkeypatch.setattr(storage, "write", refused)
        raise RunIncomplete("the reason")
        yield

    with pytest.raises(RunIncomplete, match="the reason"):
        run_small(storage, "night", REQUESTS, execute=failing)


def test_a_run_is_not_committed_over_files_that_are_gone(storage):
    def losing(run, shards):
        for shard in shards:
            receipt = score_shard(run, shard)
            yield receipt
        storage.delete(f"{run.folder}/{next(iter(receipt.files))}")

    with pytest.raises(RunIncomplete, match=r"is gone, not its receipt: remove receipts/000003\.json"):
        run_small(storage, "night", REQUESTS, execute=losing)
    storage.delete("scores/night/receipts/000003.json")
    run_small(storage, "night", REQUESTS)

    assert scores_of(storage) == pytest.approx(expected_scores(REQUESTS))


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
