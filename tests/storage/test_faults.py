"""A server that fails in every way a network can: everything is right in the end, in bounded time."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.errors import StorageError
from optirag_core.storage.base import open_storage
from tests.storage.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.s3, pytest.mark.slow]


@pytest.fixture
def through(s3_endpoint, s3_bucket, monkeypatch):
    """A place behind a proxy."""

    def place(proxy, **settings):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        chosen = {"max_attempts": 10, "connect_timeout_s": 2.0, "read_timeout_s": 1.0, **settings}
        return open_storage(f"{s3_bucket}/prefix", StorageSettings(**chosen))

    return place


def work(storage, folder, number):
    """Every operation once; returns the number of those that gave something else than they should."""
    content = f"content {number} ".encode() * 500
    name = f"file-{number:03}"
    file, back = folder / name, folder / f"{name}.back"
    file.write_bytes(content)
    storage.write(f"written/{name}", content)
    created = storage.create(f"created/{name}", content)
    storage.upload(file, f"uploaded/{name}")
    storage.download(f"uploaded/{name}", back)
    storage.write(f"deleted/{name}", content)
    storage.delete(f"deleted/{name}")
    found = [storage.read(f"{kind}/{name}") for kind in ("written", "created", "uploaded")]
    wrong = sum(value != content for value in [created, back.read_bytes(), *found])
    return wrong + storage.exists(f"deleted/{name}") + (not storage.exists(f"written/{name}"))


@pytest.mark.parametrize(
    ("mode", "rate", "count", "limit_s"),
    [
        ("unavailable", 0.1, 16, 60),
        ("unavailable", 0.3, 16, 90),
        ("truncate", 0.3, 16, 60),
        ("lost_reply", 0.3, 16, 60),
        ("hang", 0.1, 8, 90),
        ("delay", 0.3, 8, 60),
    ],
)
def test_everything_is_right_in_the_end(s3_endpoint, through, tmp_path, mode, rate, count, limit_s):
    started = time.monotonic()
    with FaultyProxy(s3_endpoint, mode=mode, rate=rate, seed=7) as proxy, ThreadPoolExecutor(8) as threads:
        storage = through(proxy)
        assert sum(threads.map(lambda number: work(storage, tmp_path, number), range(count))) == 0
        names = [f"file-{number:03}" for number in range(count)]
        for kind in ("written", "created", "uploaded"):
            assert storage.list(kind) == [f"{kind}/{name}" for name in names]
        assert storage.list("deleted") == []
    seconds = time.monotonic() - started
    print(f"{mode} {rate:.0%}: {proxy.fired} faults in {proxy.requests} requests, {seconds:.1f} s")
    assert proxy.fired >= 5
    assert seconds < limit_s


def test_lasting_errors_do_not_use_up_the_retries(s3_endpoint, through):
    """boto3 alone gives up here once a client's retry quota is gone, after some 160 requests."""
    with FaultyProxy(s3_endpoint, mode="unavailable", rate=0.4, seed=1) as proxy, ThreadPoolExecutor(8) as threads:
        storage = through(proxy, max_attempts=20)
        storage.write("file", b"x")
        assert set(threads.map(storage.read, ["file"] * 400)) == {b"x"}
    assert proxy.fired > 160


@pytest.mark.parametrize("mode", ["truncate", "unavailable"])
def test_a_large_file_in_parts(s3_endpoint, through, tmp_path, mode):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(40 * 2**20 + 3))
    with FaultyProxy(s3_endpoint, mode=mode, rate=0.3, seed=3) as proxy:
        storage = through(proxy, read_timeout_s=20.0)
        storage.upload(source, "large")
        storage.download("large", target)
    assert proxy.fired > 0
    assert target.read_bytes() == source.read_bytes()


def test_a_lost_reply_shows_our_own_content(s3_endpoint, through):
    with FaultyProxy(s3_endpoint, mode="lost_reply", rate=1.0, limit=1) as proxy:
        storage = through(proxy)
        assert storage.create("lock", b"ours") == b"ours"
        assert proxy.fired == 1
        assert storage.create("lock", b"theirs") == b"ours"


@pytest.mark.parametrize("mode", ["unavailable", "hang", "truncate"])
def test_a_server_that_never_recovers_is_given_up(s3_endpoint, through, s3_bucket, mode):
    with FaultyProxy(s3_endpoint, mode=mode, rate=1.0) as proxy:
        open_storage(f"{s3_bucket}/prefix", StorageSettings()).write("file", b"content")
        storage = through(proxy, max_attempts=3, read_timeout_s=0.5)
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"read s3://.*/prefix/file: \w+: .*run the same command again"):
            storage.read("file")
        assert time.monotonic() - started < 15
    assert proxy.fired == 3


def test_a_torn_list_is_read_again(s3_endpoint, through):
    with FaultyProxy(s3_endpoint, mode="truncate", rate=1.0, limit=2) as proxy:
        storage = through(proxy)
        for number in range(20):
            storage.write(f"a/{number:02}", b"x")
        assert storage.list("a") == [f"a/{number:02}" for number in range(20)]
    assert proxy.fired == 2


def test_a_failed_download_leaves_nothing(s3_endpoint, through, tmp_path):
    with FaultyProxy(s3_endpoint, mode="truncate", rate=1.0) as proxy:
        storage = through(proxy, max_attempts=2)
        storage.write("file", b"content" * 1000)
        with pytest.raises(StorageError, match="broke off"):
            storage.download("file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
