"""One driver per run: owners in numbered files, each created once, and a beat that shows that the newest is alive.

No two clocks need to agree: a driver that finds an owner watches whether its beat changes. Nor does the outcome depend
on the lease: two drivers at one run would repeat each other's work, and the first commit would count.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from optirag_core.errors import RunOwned, StorageError
from optirag_core.storage.base import Storage

RELEASED = b"released"


class Lease:
    """Held by this driver until it is released, lost, or the process dies."""

    def __init__(self, storage: Storage, folder: str, number: int, lease_s: float) -> None:
        self._storage = storage
        self._folder = folder
        self._number = number
        self._lease_s = lease_s
        self._released = threading.Event()
        self._lost: str | None = None
        self._storage.write(_beat(folder, number), b"0")
        self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """
        Raises:
            RunOwned: another driver took the run over while this one was silent, or this one has released it.
        """
        if self._lost:
            raise RunOwned(self._lost)
        if self._released.is_set():
            raise RunOwned(f"{self._folder} was released by this driver: begin it again")

    def release(self) -> None:
        self._released.set()
        self._thread.join(timeout=self._lease_s)  # a beat may hang; the next driver then waits for its end
        if not self._lost:
            with suppress(StorageError):  # it must not hide why the run ended
                self._storage.write(_beat(self._folder, self._number), RELEASED)

    def _keep_beating(self) -> None:
        beats = 0
        while not self._released.wait(self._lease_s / 5):
            beats += 1
            try:
                successor = self._storage.read(_owner(self._folder, self._number + 1))
                if successor is not None:
                    self._lost = f"{self._folder} was taken over by {_described(successor)}: this driver was silent"
                    return
                self._storage.write(_beat(self._folder, self._number), str(beats).encode())
            except StorageError:  # the next beat may get through; where none does, another driver takes over
                continue


@contextmanager
def owned(storage: Storage, folder: str, lease_s: float) -> Iterator[Lease]:
    """Be the run's only driver while the body runs.

    Args:
        lease_s: an owner that shows no sign of life for this many seconds is taken for dead.

    Raises:
        RunOwned: another driver is at the run.
        StorageError: the storage does not keep the first of two writers.
    """
    lease = _acquire(storage, folder, lease_s)
    try:
        yield lease
    finally:
        lease.release()


def _acquire(storage: Storage, folder: str, lease_s: float) -> Lease:
    owners = storage.list(f"{folder}/owners")
    numbers = [int(found[1]) for path in owners if (found := re.fullmatch(r".*/(\d{6})\.json", path))]
    number = max(numbers, default=0)
    if number and _alive(storage, folder, number, lease_s):
        raise RunOwned(f"{folder} is already owned by {_described(storage.read(_owner(folder, number)))}")
    me = json.dumps(
        {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "id": uuid.uuid4().hex,
        }
    ).encode()
    winner = storage.create(_owner(folder, number + 1), me)
    if winner != me:
        raise RunOwned(f"{folder} is already owned by {_described(winner)}")
    if storage.create(_owner(folder, number + 1), b"{}") != me:
        raise StorageError(
            f"{storage.uri} lets a second writer replace what a first one created, so that no commit there is safe: "
            "use a server that honours `If-None-Match: *` on PUT"
        )
    return Lease(storage, folder, number + 1, lease_s)


def _alive(storage: Storage, folder: str, number: int, lease_s: float) -> bool:
    """Whether the owner's beat changes within the lease."""
    path = _beat(folder, number)
    before = storage.read(path)
    deadline = time.monotonic() + lease_s
    while before != RELEASED and time.monotonic() < deadline:
        time.sleep(lease_s / 20)
        now = storage.read(path)
        if now == RELEASED:
            return False
        if now != before:
            return True
    return False


def _owner(folder: str, number: int) -> str:
    return f"{folder}/owners/{number:06}.json"


def _beat(folder: str, number: int) -> str:
    return f"{folder}/beats/{number:06}"


def _described(owner: bytes | None) -> str:
    found = json.loads(owner or b"{}")
    return f"process {found.get('pid')} on {found.get('host')} since {found.get('since')}"
