"""Events of the log become interactions by the rules that hold for all others, and nothing else changes."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from optirag_core.artifacts import Workspace
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.data.events import LoggedEvents
from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.splits import split_interactions
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog
from optirag_core.storage.base import open_storage
from ray_jobs.command import parse
from ray_jobs.prepare_data import prepare_data
from tests.events.small import event

from .conftest import ratings_table
from .test_splits import METHODS, TIMELESS_METHODS, check_rules, daily, day, ratings_tables, split_settings

SETTINGS = split_settings(tune_share=0.0)


def raw_of(ratings: pa.Table) -> RawDataset:
    """Items i0 to i30; every user of the ratings has a profile."""
    users = list(dict.fromkeys(ratings["user_id"].to_pylist()))
    items = [f"i{number}" for number in range(31)]
    return RawDataset(
        ratings=ratings,
        users=pa.table({"user_id": users, "age": pa.array([30] * len(users), pa.int16())}),
        items=pa.table({"item_id": items, "title": items}),
        warnings=("one",),
        counts={"num_ratings": len(ratings), "num_users": len(users), "num_items": 31},
    )


def micros(moment: datetime | None) -> int | None:
    return None if moment is None else round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**6


def logged(*rows: tuple) -> LoggedEvents:
    """Events of (user, item, rating) or (user, item, rating, moment)."""
    events = [UserEvent(f"e{n}", *row[:3], micros(row[3] if row[3:] else None)) for n, row in enumerate(rows)]
    return LoggedEvents(events, len(events))


def split_with(ratings: pa.Table, events: LoggedEvents, settings=SETTINGS) -> list[dict]:
    table, _ = split_interactions(events.added_to(raw_of(ratings)).ratings, settings, seed=0)
    return table.to_pylist()


def items_of(rows: list[dict], user: str) -> list[str]:
    return [row["item_id"] for row in rows if row["user_id"] == user]


def test_without_times_events_come_last_as_they_arrived():
    ratings = ratings_table([("a", f"i{number}", 4.0) for number in range(6)] + [("b", "i0", 1.0)])
    before = items_of(split_with(ratings, logged()), "a")
    rows = split_with(ratings, logged(("a", "i9", 5.0), ("b", "i8", 2.0), ("a", "i7", 1.0), ("a", "i8", 3.0)))
    assert items_of(rows, "a") == [*before, "i9", "i7", "i8"]
    assert items_of(rows, "b") == ["i0", "i8"]
    assert [row["split"] for row in rows if row["user_id"] == "a"][-3:] == ["train", "validation", "test"]
    assert all(row["event_time"] is None for row in rows)


def test_with_times_an_event_lies_where_it_happened():
    ratings = ratings_table(daily("a", 3))
    rows = split_with(ratings, logged(("a", "i9", 5.0, day(9)), ("a", "i8", 5.0, day(1)), ("a", "i7", 5.0, day(-1))))
    assert items_of(rows, "a") == ["i7", "i0", "i1", "i8", "i2", "i9"]  # i1 and i8 at one time: the event after it
    assert rows[3]["event_time"] == day(1)


def test_what_is_said_again_replaces_what_was_said():
    ratings = ratings_table([("a", "i0", 1.0), ("b", "i1", 2.0)])
    rows = split_with(ratings, logged(("a", "i0", 5.0), ("b", "i2", 3.0), ("b", "i2", 4.0)))
    assert [(row["user_id"], row["item_id"], row["rating"]) for row in rows] == [
        ("a", "i0", 5.0), ("b", "i1", 2.0), ("b", "i2", 4.0),
    ]  # fmt: skip


def test_with_times_the_latest_counts_whenever_it_came_in():
    ratings = ratings_table(daily("a", 3))  # i0 to i2, a day apart
    rows = split_with(ratings, logged(("a", "i1", 1.0, day(0)), ("a", "i2", 1.0, day(5)), ("a", "i2", 2.0, day(4))))
    said = {row["item_id"]: (row["rating"], row["event_time"]) for row in rows}
    assert said["i1"] == (ratings["rating"][1].as_py(), day(1)) and said["i2"] == (1.0, day(5))


def test_what_cannot_be_shown_is_skipped_and_counted_and_new_users_are_added():
    raw = raw_of(ratings_table(daily("a", 3)))
    events = logged(("a", "zzz", 5.0, day(4)), ("n", "i1", 5.0, day(4)), ("m", "i1", 5.0), ("n", "i2", 1.0, day(5)))
    merged = events.added_to(raw)
    assert merged.ratings["user_id"].to_pylist() == ["a", "a", "a", "n", "n"]
    assert merged.users.to_pylist() == [{"user_id": "a", "age": 30}, {"user_id": "n", "age": None}]
    assert merged.warnings == (
        "one",
        "skipped 1 events of items that the data lacks: no title to show",
        "skipped 1 events without a time: all other interactions have one",
    )
    assert merged.counts == {
        "num_ratings": 5, "num_users": 2, "num_items": 31, "num_events": 2, "events_without_item": 1,
        "events_without_time": 1,
    }  # fmt: skip


@st.composite
def events_of(draw, *, times: bool) -> LoggedEvents:
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        user, item, rating = draw(st.integers(0, 8)), draw(st.integers(0, 33)), draw(st.sampled_from([1.0, 5.0]))
        rows.append((f"u{user}", f"i{item}", rating, day(draw(st.integers(0, 15))) if times else None))
    return logged(*rows)


@pytest.mark.parametrize("times", [True, False])
def test_the_rules_of_splits_hold_for_events(times):
    @hypothesis_settings(deadline=None, max_examples=50)
    @given(
        ratings_tables(times=times),
        events_of(times=times),
        st.sampled_from(METHODS if times else TIMELESS_METHODS),
        st.sampled_from([0.0, 0.1, 0.5]),
    )
    def check(ratings, events, method, share):
        settings = split_settings(method, tune_share=share, test_share=0.3, min_history=2)
        merged = events.added_to(raw_of(ratings))
        interactions, _ = split_interactions(merged.ratings, settings, seed=0)
        check_rules(interactions, settings)
        if method != "time_cut":  # which drops users who come after the cut
            pairs = zip(merged.ratings["user_id"].to_pylist(), merged.ratings["item_id"].to_pylist(), strict=True)
            assert interactions.num_rows == len(set(pairs))

    check()


@pytest.mark.parametrize(("times", "method"), [(True, "time_cut"), (True, "last_share"), (False, "last_share")])
def test_a_planted_rating_of_an_event_shows_in_its_own_row_alone(times, method):
    rows = [row if times else row[:3] for user in range(6) for row in daily(f"u{user}", 12, first=user)]
    settings = split_settings(method, tune_share=0.5)

    def split(rating: float) -> list[dict]:
        late = ("u0", "i30", rating, day(30)) if times else ("u0", "i30", rating)
        return split_with(ratings_table(rows), logged(late), settings)

    differing = [(a, b) for a, b in zip(split(1.0), split(5.0), strict=True) if a != b]
    assert [(a["item_id"], a["split"], a["label"], b["label"]) for a, b in differing] == [("i30", "test", 0, 1)]


def small(workspace: Path, **dataset: object):
    made = {"synthetic": {"num_users": 60, "num_books": 40}, "like_threshold": 5, **dataset}
    return settings_from({"workspace": str(workspace), "dataset": made})


def test_the_job_makes_another_data_set_of_each_state_of_the_log(tmp_path):
    with_events, without = small(tmp_path, events=True), small(tmp_path)
    plain = prepare_data(without)
    assert prepare_data(with_events).version == plain.version  # there are no events yet
    item, user = Dataset.load(plain.path).items["item_id"][0].as_py(), "newcomer"
    log = EventLog(open_storage(str(tmp_path), with_events.storage), lambda events: None)
    log.append([event("a", user_id=user, item_id=item, rating=9.0), event("b", user_id=user, item_id="unknown")])
    log.append([event("a", user_id=user, item_id=item, rating=9.0)])  # sent again: no segment

    made = prepare_data(with_events)
    data = Dataset.load(made.path)
    assert (data.info["events_until"], data.info["counts"]["num_events"]) == (1, 1)
    [row] = [row for row in data.interactions.to_pylist() if row["user_id"] == user]
    assert (row["item_id"], row["rating"], row["label"], row["split"]) == (item, 9.0, 1, "train")
    assert row["event_time"] is None  # the generated data have no times
    assert user in data.users["user_id"].to_pylist()
    assert any("skipped 1 events of items" in warning for warning in data.info["warnings"])

    log.append([event("c", user_id=user, item_id="unknown")])
    versions = {plain.version, made.version, prepare_data(with_events).version}
    assert len(versions) == 3
    assert Workspace(str(tmp_path)).latest("dataset") not in (plain.version, made.version)
    assert prepare_data(without).version == plain.version
    assert Dataset.load(plain.path).info["events_until"] == 0


def test_events_is_a_flag(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1\n", encoding="utf-8")
    assert parse(["--config", str(config), "--events", "--seed", "3"])[0].dataset.events
    assert not parse(["--config", str(config)])[0].dataset.events
