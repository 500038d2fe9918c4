"""Calls with events and inline histories: the batch job's prompts without them, and what each of them changes."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest

from optirag_core.artifacts import Artifact
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.errors import ArtifactMismatch
from optirag_core.events.event import UserEvent
from optirag_core.inference.online import OnlineContexts
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.prompting.assembly import HistoryEntry, Request, requests_from
from optirag_core.retrieval.candidates import Candidates
from optirag_core.retrieval.vectors import FOLD_IN_FILE
from tests.inference.small_artifacts import DAY, LAST_DAY, make_artifacts, small_settings

LATER = (LAST_DAY + 1) * DAY


class World:
    """One set of artifacts."""

    def __init__(self, folder, tokenizer, *, timed):
        self.timed, self.tokenizer = timed, tokenizer
        self.settings = small_settings(folder)
        self.artifacts = make_artifacts(self.settings, folder, timed=timed)
        self.dataset = Dataset.load(self.artifacts["dataset"].path)
        self.batch, _ = open_assembler(self.settings, self.artifacts, tokenizer)
        self.items = self.dataset.items["item_id"].to_pylist()
        self.users = self.dataset.users["user_id"].to_pylist()
        self.asked = [
            request
            for split in ("validation", "test")
            for request in requests_from(requests_for(self.dataset.interactions, split))
        ]

    def online(self, *events):
        contexts = OnlineContexts.open(self.settings, self.artifacts, self.tokenizer)
        contexts.apply(events)
        return contexts

    def event(self, number, user, item, rating=9.0, *, time=None):
        time = LATER + number if time is None else time
        return UserEvent(f"e{number}", user, item, rating, time if self.timed else None)

    def fresh_items(self, user):
        """Items that the user has not met."""
        rows = self.dataset.interactions.to_pylist()
        met = {row["item_id"] for row in rows if row["user_id"] == user}
        return [item for item in self.items if item not in met]

    def text(self, assembled):
        return self.tokenizer.decode(assembled.prompt.group.prefix)

    def title(self, item):
        [row] = [row for row in self.dataset.items.to_pylist() if row["item_id"] == item]
        return row["title"]


@pytest.fixture(scope="module", params=[False, True], ids=["untimed", "timed"])
def world(request, tmp_path_factory, byte_tokenizer):
    return World(tmp_path_factory.mktemp("world"), byte_tokenizer, timed=request.param)


def all_requests(world):
    """Those of the splits, everybody now, strangers, and what is rejected."""
    now = [Request(user, [*world.items[:3], "gone", world.items[0], None]) for user in [*world.users, "stranger", None]]
    wrong = [replace(request, as_of=LATER) for request in now[:3]]
    return [*world.asked, *now, *wrong]


def test_without_events_the_batch_jobs_prompts(world):
    online = world.online()
    for request in all_requests(world):
        [expected] = world.batch.assemble([request])
        assert online.assemble(request) == expected
    assert len(world.asked) > 50


def test_without_events_the_batch_jobs_candidates(world):
    online = world.online()
    batch = Candidates.load(world.artifacts["retriever"].path, world.artifacts["dataset"].path)
    for user in [*world.users, "stranger"]:
        assert online.candidates(Request(user, None), 10) == batch.top([user], 10)[0]
    for request in world.asked:
        moment = {"as_of": [request.as_of], "as_of_position": [request.as_of_position]}
        assert online.candidates(request, 10) == batch.top([request.user_id], 10, **moment)[0]


def test_later_events_change_no_request_of_the_past(world):
    """Without times evidence is that of now, as in `evidence`: there the users and histories stay."""
    fresh = {user: world.fresh_items(user)[:1] for user in world.users}
    events = [world.event(n, user, item) for n, (user, items) in enumerate(fresh.items()) for item in items]
    online = world.online(*events)
    for request in world.asked:
        [expected] = world.batch.assemble([request])
        found = online.assemble(request)
        if world.timed:
            assert found == expected
        else:
            assert (found.similar_users, found.cold_start) == (expected.similar_users, expected.cold_start)
            assert found.prompt.group.prefix == expected.prompt.group.prefix


def test_a_new_user_is_personal_after_an_event(world):
    online, item = world.online(), world.items[5]
    request = Request("stranger", world.items[:2])
    cold = online.assemble(request)
    assert (cold.cold_start, cold.similar_users, len(cold.candidates)) == (True, [], 2)
    online.apply([world.event(1, "stranger", item)])
    warm = online.assemble(request)
    assert (warm.cold_start, len(warm.similar_users), warm.prompt.num_similar_users) == (False, 3, 3)
    assert world.title(item) in world.text(warm)
    assert world.title(item) not in world.text(cold)
    assert not np.array_equal(warm.prompt.group.evidence, cold.prompt.group.evidence)
    for user in world.users:  # whom nobody has anything to learn from
        assert "stranger" not in [n.user_id for n in online.assemble(Request(user, world.items[:1])).similar_users]


def test_an_event_of_a_known_user_moves_the_user_for_all(world):
    mover = world.users[0]
    online, before = world.online(), world.online()
    online.apply([world.event(n, mover, item) for n, item in enumerate(world.fresh_items(mover)[:4])])
    changed = 0
    for user in world.users[1:]:
        similar = [dict(of.assemble(Request(user, world.items[:1])).similar_users) for of in (before, online)]
        changed += similar[0] != similar[1]
        assert {name: similar[1][name] for name in similar[1] if name != mover} == {
            **{name: cosine for name, cosine in similar[0].items() if name in similar[1] and name != mover},
            **{name: cosine for name, cosine in similar[1].items() if name not in similar[0] and name != mover},
        }
    assert changed


def test_nobody_is_shown_what_others_have_done_since(world):
    mover = world.users[0]
    online = world.online(*(world.event(n, mover, item, 77.0) for n, item in enumerate(world.fresh_items(mover)[1:4])))
    shown = [online.assemble(Request(user, world.items[:1])) for user in world.users]
    assert sum(mover in dict(found.similar_users) for found in shown) > 0
    assert ["(77 stars)" in world.text(found) for found in shown] == [True] + [False] * (len(world.users) - 1)


@pytest.mark.parametrize("user_number", [None, 0])
def test_inline_entries_count_as_events_do(world, user_number):
    user = "stranger" if user_number is None else world.users[user_number]
    items = world.fresh_items(user)
    told = [(items[3], 9.0), (items[4], 2.0), (items[5], 8.0), (items[3], 1.0)]
    by_events = world.online(*(world.event(n, user, *entry) for n, entry in enumerate(told)))
    request = Request(user, items[:3], history=[HistoryEntry(*entry) for entry in told])
    online = world.online()
    assert online.assemble(request) == by_events.assemble(Request(user, items[:3]))
    assert online.candidates(request, 9) == by_events.candidates(Request(user, None), 9)
    assert online.assemble(Request(user, items[:3])) == world.batch.assemble([Request(user, items[:3])])[0]


def test_inline_entries_of_unknown_items_are_left_out_and_counted(world):
    history = [HistoryEntry("gone", 3.0), HistoryEntry(world.items[3], 9.0), HistoryEntry("lost", 3.0)]
    found = world.online().assemble(Request("stranger", world.items[:1], history=history))
    assert found.num_unknown_entries == 2
    assert found == replace(
        world.online().assemble(Request("stranger", world.items[:1], history=history[1:2])), num_unknown_entries=2
    )


def test_a_planted_event_on_the_target_pair_tells_nothing_of_its_rating(world):
    """Leak: the rating of the pair that is asked about, as event, as inline entry, or both; for anybody."""
    for user in ("stranger", world.users[0]):
        target, other, *_ = world.fresh_items(user)
        found = []
        for rating in (1.0, 10.0):
            online = world.online(world.event(1, user, other), world.event(2, user, target, rating))
            found.append(online.assemble(Request(user, [target])))
            history = [HistoryEntry(target, rating)]
            found.append(replace(online.assemble(Request(user, [target], history=history))))
        assert found[0] == found[1] == found[2] == found[3]
        own = world.text(found[0]).split("Target user:")[1]
        assert world.title(target) not in own
        assert world.title(other) in own


@pytest.mark.parametrize("world", [True], indirect=True, ids=["timed"])  # as_of needs times
def test_a_planted_event_at_the_moment_is_not_known(world):
    user = world.users[0]
    first, second, third, *_ = world.fresh_items(user)
    online = world.online(world.event(1, user, first), world.event(3, "stranger", third))
    planted = world.online(
        world.event(1, user, first), world.event(3, "stranger", third), world.event(5, user, second, 1.0),
        world.event(6, "stranger", second, 1.0), world.event(7, world.users[1], third, 1.0),
    )  # fmt: skip
    for asked in (user, "stranger", world.users[1]):
        request = Request(asked, world.items[:5], as_of=LATER + 5)
        assert planted.assemble(request) == online.assemble(request)
        later = [HistoryEntry(world.items[9], 1.0, LATER + 5)]
        assert planted.assemble(replace(request, history=later)) == online.assemble(request)
        before = [HistoryEntry(world.items[9], 1.0, LATER + 4)]
        assert planted.assemble(replace(request, history=before)) != online.assemble(request)
    assert not online.assemble(Request("stranger", world.items[:1], as_of=LATER + 4)).cold_start
    assert online.assemble(Request("stranger", world.items[:1], as_of=LATER + 3)).cold_start


def test_candidates_leave_out_what_was_met_since(world):
    user = world.users[0]
    online = world.online()
    first, second, *_ = online.candidates(Request(user, None), 5)
    online.apply([world.event(1, user, first)])
    history = [HistoryEntry(second, 5.0)]
    assert not {first, second} & {*online.candidates(Request(user, None, history=history), 5)}
    assert second in online.candidates(Request(user, None), len(world.items))


def test_what_is_known_of_a_user(world):
    online = world.online(world.event(1, "stranger", world.items[3]), world.event(2, "stranger", world.items[2], 4.0))
    known = online.user("stranger")
    assert [(shown.item_id, shown.rating) for shown in known.history] == [(world.items[3], 9.0), (world.items[2], 4.0)]
    assert known.titles == [world.title(world.items[3]), world.title(world.items[2])]
    assert (len(known.similarities), known.cold_start) == (3, False)
    assert known.similarities == sorted(known.similarities, reverse=True)
    nobody = online.user("nobody")
    assert (nobody.history, nobody.titles, nobody.similarities, nobody.cold_start) == ([], [], [], True)


def test_users_and_items_are_found(world):
    online = world.online(world.event(1, "1stranger", world.items[3]))
    found = online.users("1", 100)
    assert found == sorted({*(user for user in world.users if user.startswith("1")), "1stranger"} & {*found})
    assert "1stranger" in found
    title = world.title(world.items[7])
    assert (world.items[7], title) in online.items(title.upper(), 40)
    assert len(online.items("", 7)) == 7
    assert online.items("no such title", 7) == []
    assert online.knows_item(world.items[7])
    assert not online.knows_item("gone")
    assert online.title(world.items[7]) == title


def test_events_that_do_not_fit_are_passed_over(world, caplog):
    online = world.online(
        world.event(1, "stranger", "gone"), replace(world.event(2, "stranger", world.items[0]), time=None)
    )
    assert online.user("stranger").cold_start is world.timed
    assert f"{2 if world.timed else 1} of 2 events do not fit this data set" in caplog.text


def without_fold_in(world, tmp_path, method):
    retriever = tmp_path / "retriever"
    retriever.mkdir()
    for path in world.artifacts["retriever"].path.iterdir():
        if path.name != FOLD_IN_FILE:
            (retriever / path.name).symlink_to(path)
    manifest = {"version": "old", "config": {"retriever": {"method": method}}}
    artifacts = {**world.artifacts.by_kind, "retriever": Artifact("retriever", retriever, manifest)}
    return Artifacts(world.artifacts.workspace, artifacts)


def test_a_retriever_of_an_earlier_version_is_refused(world, tmp_path):
    with pytest.raises(ArtifactMismatch, match=r"retriever/old was made by an earlier version.*train_retriever again"):
        OnlineContexts.open(world.settings, without_fold_in(world, tmp_path, "gcn"), world.tokenizer)


def test_a_retriever_by_text_keeps_its_vectors(world, tmp_path):
    online = OnlineContexts.open(world.settings, without_fold_in(world, tmp_path, "text"), world.tokenizer)
    user = world.users[0]
    request = Request(user, world.fresh_items(user)[:1])
    before = online.assemble(request)
    item = world.fresh_items(user)[4]
    online.apply([world.event(1, user, item), world.event(2, "stranger", item)])
    after = online.assemble(request)
    assert after.similar_users == before.similar_users
    assert world.title(item) in world.text(after)
    stranger = online.assemble(Request("stranger", world.items[:1]))
    assert stranger.cold_start
    assert world.title(item) in world.text(stranger) or item == world.items[0]


def test_events_may_come_while_others_ask(world):
    events = [world.event(n, world.users[n % 7], item) for n, item in enumerate(world.items * 5)]
    online, expected = world.online(), world.online(*events)
    thread = Thread(target=lambda: [online.apply([event]) for event in events])
    thread.start()
    asked = [Request(user, world.items[:4]) for user in world.users[:9]]
    while thread.is_alive():
        assert all(found.prompt for found in map(online.assemble, asked))
    thread.join()
    assert [online.assemble(request) for request in asked] == [expected.assemble(request) for request in asked]
