"""A run on a place that fails: a bucket that errs, hangs, truncates or loses replies, and a disk that is full."""

import os
import time

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageFull
from optirag_core.runs.reader import read_scores
from optirag_core.storage.base import open_storage
from optirag_core.storage.local import LocalStorage
from tests.runs.small import expected_scores, run_small, small_requests
from tests.storage.faulty_proxy import FaultyProxy

REQUESTS = small_requests()
SETTINGS = StorageSettings(max_attempts=12, connect_timeout_s=2.0, read_timeout_s=1.0)


def pairs_of(table):
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "rate"),
    [("unavailable", 0.1), ("unavailable", 0.3), ("hang", 0.03), ("truncate", 0.3), ("lost_reply", 0.3)],
)
def test_a_run_on_a_bucket_that_fails(s3_bucket, s3_endpoint, monkeypatch, reliability, mode, rate):
    with FaultyProxy(s3_endpoint, mode=mode, rate=rate, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        started = time.monotonic()
        run_small(open_storage(s3_bucket, SETTINGS), "night", REQUESTS, lease_s=5.0)
        seconds = time.monotonic() - started
        scores = read_scores(f"{s3_bucket}/scores", storage=SETTINGS)

    found, expected = pairs_of(scores), set(expected_scores(REQUESTS))
    reliability[f"S3 {mode} at {rate:.0%}"] = {
        "tried": proxy.fired, "requests": proxy.requests, "lost": len(expected - set(found)),
        "duplicated": len(found) - len(set(found)), "hung": int(seconds > 120), "seconds": round(seconds, 1),
    }  # fmt: skip
    assert proxy.fired > 3
    assert sorted(found) == sorted(expected)
    assert seconds < 120


class Filling:
    """A local storage whose disk is full from one step on."""

    def __init__(self, storage, part):
        self._storage, self._part = storage, part
        self.filler = storage.root / "filler"

    def __getattr__(self, name):
        call = getattr(self._storage, name)

        def filling(*arguments):
            if name in ("write", "create", "upload") and any(self._part in str(argument) for argument in arguments):
                fill(self.filler)
            return call(*arguments)

        return filling if name in ("write", "create", "upload") else call


def fill(file):
    with file.open("ab") as stream:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    os.write(stream.fileno(), b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("small_disk", [4 * 2**20], indirect=True)
@pytest.mark.parametrize("part", ["/shards/000001", "/attempts/000002", "/receipts/000001", "/manifest.json"])
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(small_disk, reliability, part):
    storage = LocalStorage(small_disk)
    filling = Filling(storage, part)

    with pytest.raises(StorageFull, match=f"no space left for .*{part.rpartition('/')[0]}/"):
        run_small(filling, "night", REQUESTS)

    assert filling.filler.stat().st_size > 2**20  # the fault fired
    assert not storage.exists("scores/night/manifest.json")
    assert not list(small_disk.rglob(".part-*"))
    filling.filler.unlink()
    run_small(storage, "night", REQUESTS)
    found, expected = pairs_of(read_scores(f"{small_disk}/scores")), set(expected_scores(REQUESTS))
    lost, duplicated = len(expected - set(found)), len(found) - len(set(found))
    reliability[f"disk full at {part}"] = {"tried": 1, "lost": lost, "duplicated": duplicated}
    assert sorted(found) == sorted(expected)
