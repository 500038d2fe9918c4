"""Events are kept once, in one order for all, over a local folder and a bucket; whoever is killed loses nothing."""

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.config.run import StorageSettings
from optirag_core.errors import ArtifactCorrupt, StorageError
from optirag_core.events.event_log import EventLog, Stored
from optirag_core.events.segments import segment_bytes, segment_count, segment_file
from optirag_core.storage.base import Storage, open_storage

from .small import call_of, collecting, event

REPOSITORY = Path(__file__).resolve().parents[2]
STORED, DUPLICATE, CONFLICT = Stored


class Watched:
    """A storage that notes its calls, and holds or refuses creates on request."""

    def __init__(self, storage: Storage) -> None:
        self.uri, self._storage = storage.uri, storage
        self.calls: list[tuple[str, str]] = []
        self.may_create = threading.Event()
        self.may_create.set()
        self.creating = threading.Event()
        self.refuses = False

    def create(self, path: str, content: bytes) -> bytes:
        self.calls.append(("create", path))
        self.creating.set()
        assert self.may_create.wait(30)
        if self.refuses:
            raise StorageError("out of reach")
        return self._storage.create(path, content)

    def read(self, path: str) -> bytes | None:
        self.calls.append(("read", path))
        return self._storage.read(path)

    def list(self, folder: str) -> list[str]:
        self.calls.append(("list", folder))
        return self._storage.list(folder)

    def exists(self, path: str) -> bool:
        return self._storage.exists(path)


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "workspace"), StorageSettings())


def test_what_is_appended_is_applied_here_and_read_elsewhere(storage):
    log, seen = collecting(storage)
    assert log.append([event("a"), event("b")]) == [STORED, STORED]
    assert (seen.ids, log.position) == (["a", "b"], 1)
    other, others = collecting(storage)
    other.read()
    assert (others.events, other.position) == (seen.events, 1)
    assert other.append([event("c")]) == [STORED]
    log.read()
    log.read()
    assert (seen.ids, log.position) == (["a", "b", "c"], 2)


def test_an_id_counts_once(local):
    log, seen = collecting(local)
    again = event("b", rating=2.0)
    sent = [event("a"), event("a"), event("b"), again, event("c", time=1, time_given=False)]
    assert log.append(sent) == [STORED, DUPLICATE, STORED, CONFLICT, STORED]
    later = [event("c", time=2, time_given=False), event("a"), event("d")]
    for log_of_a_process in (log, collecting(local)[0]):
        last = STORED if log_of_a_process is log else DUPLICATE
        assert log_of_a_process.append(later) == [DUPLICATE, DUPLICATE, last]
    assert log.append([event("a")]) == [DUPLICATE]  # nothing new: no segment
    assert seen.ids == ["a", "b", "c", "d"]
    assert segment_count(local) == log.position == 2


def test_who_loses_the_race_reads_the_winners_segment_first(storage):
    slow, seen = collecting(storage)
    slow.read()
    fast, _ = collecting(storage)
    fast.append([event("a")])
    fast.append([event("b")])
    assert slow.append([event("b"), event("c"), event("a", rating=1.0)]) == [DUPLICATE, STORED, CONFLICT]
    assert (seen.ids, slow.position) == (["a", "b", "c"], 3)


def test_what_the_data_set_holds_is_not_applied_but_its_ids_count(local):
    log, _ = collecting(local)
    for name in "abc":
        log.append([event(name)])
    late, seen = collecting(local, start=2)
    assert late.append([event("a"), event("d")]) == [DUPLICATE, STORED]
    assert (seen.ids, late.position) == (["c", "d"], 4)
    behind, _ = collecting(local, start=5)
    with pytest.raises(ArtifactCorrupt, match=r"holds the first 5 segments of the event log, but .* has 4"):
        behind.read()


def test_polling_an_unchanged_log_is_one_look(local):
    watched = Watched(local)
    log, _ = collecting(watched)
    log.append([event("a")])
    watched.calls.clear()
    log.read()
    assert watched.calls == [("read", segment_file(1))]


def test_calls_that_come_while_a_segment_is_written_share_the_next_one(local):
    watched = Watched(local)
    log, seen = collecting(watched)
    watched.may_create.clear()
    with ThreadPoolExecutor(21) as threads:
        first = threads.submit(log.append, [event("first")])
        assert watched.creating.wait(30)
        others = [threads.submit(log.append, [event(f"{number}"), event("shared")]) for number in range(20)]
        while len(log._waiting) < 20:
            time.sleep(0.001)
        watched.may_create.set()
        outcomes = [first.result(), *(other.result() for other in others)]
    assert [created for created in watched.calls if created[0] == "create"] == [
        ("create", segment_file(0)),
        ("create", segment_file(1)),
    ]
    assert [outcome[0] for outcome in outcomes] == [STORED] * 21
    assert sorted(outcome[1].value for outcome in outcomes[1:]) == ["duplicate"] * 19 + ["stored"]
    assert sorted(seen.ids) == sorted(["first", "shared", *map(str, range(20))])


def test_an_error_reaches_every_call_of_the_group_and_the_log_goes_on(local):
    watched = Watched(local)
    log, seen = collecting(watched)
    watched.may_create.clear()
    watched.refuses = True
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(log.append, [event("0")])]
        assert watched.creating.wait(30)
        calls += [threads.submit(log.append, [event(f"{number}")]) for number in range(1, 5)]
        while len(log._waiting) < 4:
            time.sleep(0.001)
        watched.may_create.set()
        for call in calls:
            with pytest.raises(StorageError, match="out of reach"):
                call.result()
    watched.refuses = False
    assert log.append([event(f"{number}") for number in range(5)]) == [STORED] * 5
    assert seen.ids == list("01234")


def test_a_damaged_segment_and_a_missing_one_are_named(local):
    log, _ = collecting(local)
    for name in "abc":
        log.append([event(name)])
    content = segment_bytes([event("b")])
    local.write(segment_file(1), content.replace(b'"u"', b'"v"'))
    with pytest.raises(ArtifactCorrupt, match=r"events/000000000001\.jsonl, line 1"):
        collecting(local)[0].read()
    local.delete(segment_file(1))
    damaged, seen = collecting(local)
    with pytest.raises(ArtifactCorrupt, match=r"events/000000000001\.jsonl .* is missing"):
        damaged.append([event("d")])
    local.write(segment_file(1), content)
    damaged.read()
    assert seen.ids == ["a", "b", "c"]


@examples(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 2)), max_size=3)),
        max_size=8,
    )
)
def test_any_calls_of_three_processes_do_what_one_dictionary_does(tmp_path_factory, calls):
    """The slow, obvious version: all events in the order of the calls, the first of an id counts."""
    place = open_storage(str(tmp_path_factory.mktemp("log")), StorageSettings())
    logs, known = [collecting(place) for _ in range(3)], {}
    for process, sent in calls:
        expected = []
        for name, rating in sent:
            became = DUPLICATE if known.get(name) == rating else CONFLICT if name in known else STORED
            known.setdefault(name, rating)
            expected.append(became)
        assert logs[process][0].append([event(name, rating=float(rating)) for name, rating in sent]) == expected
    for log, seen in logs:
        log.read()
        assert [(found.event_id, int(found.rating)) for found in seen.events] == list(known.items())


def appender(uri: str, name: str, num_threads: int, num_calls: int) -> subprocess.Popen:
    arguments = ["tests.events.small", uri, name, str(num_threads), str(num_calls)]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def acknowledged(process: subprocess.Popen) -> list[tuple[str, str]]:
    """What a process said until it ended; a last line that was cut off counts not."""
    lines = process.communicate()[0].splitlines(keepends=True)
    return [tuple(line.split()) for line in lines if line.endswith("\n")]


def check_killed(place: Storage, num_processes: int, num_kills: int) -> None:
    """Rounds of processes that append at once, of which all but one are killed at a random moment."""
    said: list[tuple[str, str]] = []
    random.seed(0)
    for number in range(num_kills):
        with ExitStack() as stack:
            names = [f"p{number}-{process}" for process in range(num_processes)]
            processes = [stack.enter_context(appender(place.uri, name, 4, 200)) for name in names]
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            for process in processes[:-1]:
                time.sleep(random.uniform(0.0, 0.15))
                process.kill()
            said += [line for process in processes for line in acknowledged(process)]
    log, seen = collecting(place)
    log.read()
    assert len(seen.ids) == len(set(seen.ids))
    assert {event_id for event_id, _ in said} <= set(seen.ids)
    stored = [event_id for event_id, outcome in said if outcome == "stored"]
    assert len(stored) == len(set(stored))
    assert len(said) > 0
    sent = {sent.event_id: sent for number in range(num_kills) for process in range(num_processes)
            for call in range(200) for sent in call_of(f"p{number}-{process}", call)}  # fmt: skip
    assert all(sent[found.event_id] == found for found in seen.events)


def test_no_acknowledged_event_is_lost_or_twice_when_processes_are_killed(local):
    check_killed(local, num_processes=3, num_kills=2)


@pytest.mark.thorough
def test_twenty_kills(local):
    check_killed(local, num_processes=3, num_kills=10)


@pytest.mark.s3
@pytest.mark.slow
def test_no_acknowledged_event_is_lost_or_twice_in_a_bucket(s3_bucket):
    check_killed(open_storage(f"{s3_bucket}/workspace", StorageSettings()), num_processes=2, num_kills=1)


def test_a_log_is_opened_over_many_segments(local):
    """More than are asked for at a time; they come in order."""
    for number in range(1100):
        path = local.root / segment_file(number)  # without an fsync for each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(segment_bytes([event(f"{number}")]))
    log, seen = collecting(local, start=100)
    log.read()
    assert seen.ids == [f"{number}" for number in range(100, 1100)]
    assert log.position == 1100


def test_reads_and_appends_from_many_threads_apply_each_event_once(local):
    logs = [collecting(local) for _ in range(2)]

    def work(number: int) -> list[Stored]:
        log: EventLog = logs[number % 2][0]
        log.read()
        return log.append([event(f"{number % 50}")])

    with ThreadPoolExecutor(8) as threads:
        outcomes = [outcome for [outcome] in threads.map(work, range(100))]
    assert (outcomes.count(STORED), outcomes.count(DUPLICATE)) == (50, 50)
    for log, seen in logs:
        log.read()
        assert sorted(seen.ids) == sorted(map(str, range(50)))
    assert logs[0][1].events == logs[1][1].events
