"""One driver at a run: the living keep others out, the dead and the released do not."""

import time

import pytest

from optirag_core.errors import RunOwned, StorageError
from optirag_core.runs.lease import owned
from optirag_core.storage.local import LocalStorage

LEASE_S = 1.0


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def test_a_living_owner_keeps_others_out(storage):
    with owned(storage, "run", LEASE_S) as lease:
        with pytest.raises(RunOwned, match=r"run is already owned by process \d+"), owned(storage, "run", LEASE_S):
            pass
        lease.check()


def test_a_released_lease_is_free_at_once_and_no_longer_held(storage):
    with owned(storage, "run", LEASE_S) as lease:
        pass
    with pytest.raises(RunOwned, match="run was released by this driver"):
        lease.check()

    started = time.monotonic()
    with owned(storage, "run", 60.0):
        pass
    assert time.monotonic() - started < 5


def test_a_silent_owner_is_followed_and_learns_of_it(storage, monkeypatch):
    with owned(storage, "run", LEASE_S) as first:
        monkeypatch.setattr(storage, "write", lambda path, content: None)  # its beats no longer arrive
        with owned(LocalStorage(storage.root), "run", LEASE_S):
            time.sleep(LEASE_S)
            with pytest.raises(RunOwned, match="was taken over by process"):
                first.check()


def test_the_loser_of_a_race_for_a_free_run_is_told(storage, monkeypatch):
    create = storage.create

    def slower(path, content):
        create(path, b'{"pid": 1, "host": "other", "since": "now"}')
        return create(path, content)

    monkeypatch.setattr(storage, "create", slower)

    with pytest.raises(RunOwned, match="already owned by process 1 on other"), owned(storage, "run", LEASE_S):
        pass


def test_a_storage_that_replaces_what_was_created_is_refused(storage, monkeypatch):
    def replaces(path, content):  # a server that ignores If-None-Match
        storage.write(path, content)
        return content

    monkeypatch.setattr(storage, "create", replaces)

    with pytest.raises(StorageError, match="no commit there is safe"), owned(storage, "run", LEASE_S):
        pytest.fail("the run was owned")
