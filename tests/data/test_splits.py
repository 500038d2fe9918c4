"""Hand-computed splits, properties over random data, and planted leaks: each must be caught."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from optirag_core.config.data import DatasetSettings
from optirag_core.data.schema import INTERACTIONS, REQUESTS, SPLITS
from optirag_core.data.splits import (
    history_lengths,
    requests_for,
    split_interactions,
)
from optirag_core.errors import ConfigError, DataError

from .conftest import ratings_table

METHODS = ("leave_last_out", "last_share", "time_cut")
TIMELESS_METHODS = METHODS[:2]
DAY = datetime(2020, 1, 1, tzinfo=UTC)


def split_settings(method="last_share", **changes):
    shares = {name: changes.pop(name) for name in list(changes) if name.endswith("_share")}
    return DatasetSettings.model_validate({"split": {"method": method, **shares}, **changes})


def day(number):
    return DAY + timedelta(days=number)


def daily(user, num, first=0, rating=5.0):
    """`num` ratings of one user, one a day, of items i<first>, i<first + 1>, ..."""
    return [(user, f"i{number}", rating, day(number)) for number in range(first, first + num)]


def items_in(interactions, split, user):
    rows = interactions.to_pylist()
    return [row["item_id"] for row in rows if row["split"] == split and row["user_id"] == user]


@st.composite
def ratings_tables(draw, *, times):
    """Up to 6 users with up to 25 ratings each, repeated pairs and tied days included."""
    rows = []
    for user in range(draw(st.integers(1, 6))):
        for _ in range(draw(st.integers(1, 25))):
            moment = day(draw(st.integers(0, 12))) if times else None
            rows.append((f"u{user}", f"i{draw(st.integers(0, 30))}", draw(st.sampled_from([0.0, 2.0, 5.0])), moment))
    return ratings_table(draw(st.permutations(rows)))


settings_strategy = st.builds(
    split_settings,
    st.sampled_from(METHODS),
    test_share=st.sampled_from([0.0, 0.1, 0.3]),
    validation_share=st.sampled_from([0.0, 0.1, 0.3]),
    tune_share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    min_history=st.integers(1, 4),
)


def check_rules(interactions, settings):
    """Every rule that holds for every method, the slow way."""
    assert interactions.schema == INTERACTIONS
    users = interactions["user_id"].to_pylist()
    assert users == sorted(users)
    for user in set(users):
        rows = [row for row in interactions.to_pylist() if row["user_id"] == user]
        assert [row["position"] for row in rows] == list(range(len(rows)))
        assert len({row["item_id"] for row in rows}) == len(rows)
        times = [row["event_time"] for row in rows]
        assert times[0] is None or times == sorted(times)
        order = [SPLITS.index(row["split"]) for row in rows]
        assert order == sorted(order)  # train < tune < validation < test
        num_tune, num_train = order.count(SPLITS.index("tune")), order.count(SPLITS.index("train"))
        assert num_tune <= min(8, max(1, (num_train + num_tune) // 5))
        for row in rows:
            assert row["label"] == (row["rating"] > settings.like_threshold)
            past = [other for other in rows if is_past(other, row)]
            assert row["split"] == "train" or len(past) >= settings.min_history


def is_past(other, row):
    if row["event_time"] is None:
        return other["position"] < row["position"]
    return other["event_time"] < row["event_time"]


@hypothesis_settings(deadline=None)
@given(ratings_tables(times=True), settings_strategy, st.integers(0, 3))
def test_rules_hold_with_times(ratings, settings, seed):
    interactions, counts = split_interactions(ratings, settings, seed)
    check_rules(interactions, settings)
    again, same_counts = split_interactions(ratings, settings, seed)
    assert interactions.equals(again)
    assert counts == same_counts


@hypothesis_settings(deadline=None)
@given(ratings_tables(times=False), settings_strategy, st.integers(0, 3))
def test_rules_hold_without_times(ratings, settings, seed):
    if settings.split.method == "time_cut":
        with pytest.raises(ConfigError, match="time_cut needs times"):
            split_interactions(ratings, settings, seed)
        return
    interactions, _ = split_interactions(ratings, settings, seed)
    check_rules(interactions, settings)
    pairs = set(zip(ratings["user_id"].to_pylist(), ratings["item_id"].to_pylist(), strict=True))
    assert interactions.num_rows == len(pairs)


def test_leave_last_out_by_hand():
    ratings = ratings_table(daily("a", 6) + daily("b", 4) + daily("c", 3))
    interactions, _ = split_interactions(ratings, split_settings("leave_last_out", tune_share=0.0), seed=0)
    assert items_in(interactions, "train", "a") == ["i0", "i1", "i2", "i3"]
    assert items_in(interactions, "validation", "a") == ["i4"]
    assert items_in(interactions, "test", "a") == ["i5"]
    assert items_in(interactions, "train", "b") == ["i0", "i1", "i2"]  # i2 has two past interactions: no validation
    assert items_in(interactions, "test", "b") == ["i3"]
    assert items_in(interactions, "train", "c") == ["i0", "i1", "i2"]


def test_last_share_by_hand():
    ratings = ratings_table(daily("a", 20) + daily("b", 5) + daily("c", 4))
    interactions, _ = split_interactions(ratings, split_settings(tune_share=0.0, test_share=0.15), seed=0)
    assert items_in(interactions, "test", "a") == ["i17", "i18", "i19"]
    assert items_in(interactions, "validation", "a") == ["i15", "i16"]
    assert items_in(interactions, "test", "b") == ["i4"]  # at least one
    assert items_in(interactions, "validation", "b") == ["i3"]
    assert items_in(interactions, "train", "c") == ["i0", "i1", "i2", "i3"]  # fewer than min_history + 2


def test_time_cut_by_hand():
    """20 interactions: the last 2 days are test, the 2 before validation; b has no history before the cut."""
    ratings = ratings_table(daily("a", 16) + daily("b", 4, first=16))
    interactions, counts = split_interactions(ratings, split_settings("time_cut", tune_share=0.0), seed=0)
    assert len(items_in(interactions, "train", "a")) == 16
    assert interactions.num_rows == 16
    assert counts.after_cut_removed == 4
    ratings = ratings_table(daily("a", 20))
    interactions, _ = split_interactions(ratings, split_settings("time_cut", tune_share=0.0), seed=0)
    assert items_in(interactions, "validation", "a") == ["i16", "i17"]
    assert items_in(interactions, "test", "a") == ["i18", "i19"]


def test_labels_and_explicit_only():
    rows = [("a", f"i{rating}", float(rating), day(rating)) for rating in range(10)]
    implicit, _ = split_interactions(ratings_table(rows), split_settings(like_threshold=5), seed=0)
    assert implicit["label"].to_pylist() == [0] * 6 + [1] * 4
    explicit, counts = split_interactions(
        ratings_table(rows), split_settings(like_threshold=7, explicit_only=True), seed=0
    )
    assert explicit["rating"].to_pylist() == list(range(1, 10))
    assert sum(explicit["label"].to_pylist()) == 2
    assert counts.implicit_dropped == 1


def test_counts_add_up():
    ratings = ratings_table([*daily("a", 20), *daily("a", 3), *daily("b", 2, first=18)])
    interactions, counts = split_interactions(ratings, split_settings("time_cut"), seed=0)
    sizes = Counter(interactions["split"].to_pylist())
    assert (counts.train, counts.tune, counts.validation, counts.test) == tuple(sizes[split] for split in SPLITS)
    assert (counts.implicit_dropped, counts.duplicates_dropped, counts.after_cut_removed) == (0, 3, 2)
    sizes = asdict(counts)
    assert sizes.pop("method") == "time_cut"
    assert sum(sizes.values()) - counts.tune_wanted == ratings.num_rows


@pytest.mark.parametrize(("tune_share", "wanted", "warned"), [(0.2, 2, False), (0.25, 2, False), (1.0, 8, True)])
def test_a_share_out_of_reach_is_reached_as_far_as_users_go_and_said(tune_share, wanted, warned):
    """11 train rows, 8 of them eligible: the user gives 2 at most."""
    settings = split_settings("leave_last_out", tune_share=tune_share)
    interactions, counts = split_interactions(ratings_table(daily("a", 13)), settings, seed=0)
    assert items_in(interactions, "tune", "a") == ["i9", "i10"]
    assert (counts.tune, counts.tune_wanted) == (2, wanted)
    assert bool(counts.warnings) == warned
    assert all("tune has 2 of the 8 targets that dataset.split.tune_share asks for" in text for text in counts.warnings)


@pytest.mark.parametrize("method", METHODS)
def test_tune_is_the_wanted_share_of_the_train_samples_from_the_ends(method):
    ratings = ratings_table([row for user in range(40) for row in daily(f"u{user:02}", 20)])
    settings = split_settings(method, tune_share=0.1)
    interactions, counts = split_interactions(ratings, settings, seed=0)
    rows = interactions.to_pylist()
    num_samples = sum(row["split"] in {"train", "tune"} and row["position"] >= settings.min_history for row in rows)
    tuned = {row["user_id"] for row in rows if row["split"] == "tune"}
    assert counts.tune == counts.tune_wanted == round(0.1 * num_samples)
    assert 0 < len(tuned) < 40
    others, _ = split_interactions(ratings, settings, seed=1)
    assert tuned != {row["user_id"] for row in others.to_pylist() if row["split"] == "tune"}


def test_requests_by_hand():
    ratings = ratings_table(daily("a", 20, rating=1.0) + daily("b", 3) + daily("c", 5))
    interactions, _ = split_interactions(ratings, split_settings(tune_share=0.0), seed=0)
    requests = requests_for(interactions, "test")
    assert requests.schema == REQUESTS.append(pa.field("labels", pa.list_(pa.int8())))
    assert requests.to_pylist() == [
        {"user_id": "a", "item_ids": ["i18", "i19"], "as_of": day(18), "as_of_position": 18, "labels": [0, 0]},
        {"user_id": "c", "item_ids": ["i4"], "as_of": day(4), "as_of_position": 4, "labels": [1]},
    ]
    assert requests_for(interactions, "tune").num_rows == 0
    timeless = ratings_table([row[:3] for row in daily("a", 20)])
    interactions, _ = split_interactions(timeless, split_settings(tune_share=0.0), seed=0)
    request = requests_for(interactions, "test").to_pylist()[0]
    assert (request["as_of"], request["as_of_position"], len(request["item_ids"])) == (None, 18, 2)


def test_history_lengths_by_hand():
    """a has 9 train, 3 validation and 2 test rows, b 3, 1 and 1, c 4, 1 and 1, of which the last 3 share their day."""
    tied = [*daily("c", 3), *[("c", f"late{number}", 5.0, day(3)) for number in range(3)]]
    ratings = ratings_table(daily("a", 14) + daily("b", 5) + tied)
    settings = split_settings(tune_share=1.0, validation_share=0.2, test_share=0.15)
    interactions, _ = split_interactions(ratings, settings, seed=0)
    assert history_lengths(interactions) == {
        "tune": {"3": 1, "8": 1},
        "validation": {"3": 2, "9": 1},
        "test": {"3": 1, "4": 1, "12": 1},
    }
    assert list(history_lengths(interactions)["test"]) == ["3", "4", "12"]  # as numbers, not as text


@hypothesis_settings(deadline=None)
@given(ratings_tables(times=True) | ratings_tables(times=False), st.sampled_from(TIMELESS_METHODS))
def test_history_lengths_count_what_prompts_may_show(ratings, method):
    interactions, _ = split_interactions(ratings, split_settings(method, tune_share=0.5, test_share=0.3), seed=0)
    for split, lengths in history_lengths(interactions).items():
        expected = Counter()
        for request in requests_for(interactions, split).to_pylist():
            cut = {"event_time": request["as_of"], "position": request["as_of_position"]}
            rows = [row for row in interactions.to_pylist() if row["user_id"] == request["user_id"]]
            expected[str(sum(is_past(row, cut) for row in rows))] += 1
        assert lengths == expected


@hypothesis_settings(deadline=None)
@given(ratings_tables(times=True) | ratings_tables(times=False), st.sampled_from(TIMELESS_METHODS))
def test_no_candidate_is_in_the_past_of_its_request(ratings, method):
    """What a prompt may show: before `as_of` where times exist, else before `as_of_position`."""
    settings = split_settings(method, min_history=2, test_share=0.3)
    interactions, _ = split_interactions(ratings, settings, seed=0)
    for split in ("tune", "validation", "test"):
        for request in requests_for(interactions, split).to_pylist():
            rows = [row for row in interactions.to_pylist() if row["user_id"] == request["user_id"]]
            cut = {"event_time": request["as_of"], "position": request["as_of_position"]}
            shown = [row["item_id"] for row in rows if is_past(row, cut)]
            assert len(shown) >= settings.min_history
            assert not set(shown) & set(request["item_ids"])


# Planted leaks


def test_leak_a_repeated_pair_is_not_both_in_train_and_test():
    """The user rates i0 first and again last: as a test row it would be in its own prompt."""
    ratings = ratings_table([*daily("a", 10), ("a", "i0", 1.0, day(99))])
    interactions, _ = split_interactions(ratings, split_settings("leave_last_out"), seed=0)
    assert items_in(interactions, "test", "a") == ["i9"]
    assert interactions["item_id"].to_pylist().count("i0") == 1


def test_leak_rows_after_the_cut_never_enter_train():
    """Newcomers after the cut are no samples for lack of history; as train rows they would reach the graph."""
    newcomers = [row for user in "bcd" for row in daily(user, 3, first=17)]
    ratings = ratings_table([*daily("a", 17), *newcomers, *daily("e", 2, first=15)])
    settings = split_settings("time_cut", test_share=0.2, validation_share=0.2)
    interactions, _ = split_interactions(ratings, settings, seed=0)
    rows = interactions.to_pylist()
    first_cut = min(row["event_time"] for row in rows if row["split"] in {"validation", "test"})
    assert all(row["event_time"] < first_cut for row in rows if row["split"] in {"train", "tune"})
    assert not {"b", "c", "d"} & {row["user_id"] for row in rows}


def test_leak_the_cut_divides_no_timestamp():
    """All of day 15 lies on one side, though the share alone would cut within it."""
    ratings = ratings_table([*daily("a", 15), *[("a", f"tie{n}", 5.0, day(15)) for n in range(5)]])
    interactions, _ = split_interactions(ratings, split_settings("time_cut", validation_share=0.0), seed=0)
    assert {row["split"] for row in interactions.to_pylist() if row["event_time"] == day(15)} == {"test"}


def test_leak_ties_are_not_history():
    """Six reviews of one midnight: none is another's past, so none is a sample."""
    ties = [("a", f"i{number}", 5.0, DAY) for number in range(6)]
    for method in TIMELESS_METHODS:
        interactions, _ = split_interactions(ratings_table(ties), split_settings(method), seed=0)
        assert set(interactions["split"].to_pylist()) == {"train"}
    with_history = [*ties[:3], *[("a", f"late{number}", 5.0, day(1)) for number in range(3)]]
    interactions, _ = split_interactions(ratings_table(with_history), split_settings("leave_last_out"), seed=0)
    request = requests_for(interactions, "test").to_pylist()[0]
    shown = [row["item_id"] for row in interactions.to_pylist() if row["event_time"] < request["as_of"]]
    assert shown == ["i0", "i1", "i2"]


@pytest.mark.parametrize("method", METHODS)
def test_leak_tune_targets_are_no_train_rows(method):
    ratings = ratings_table([row for user in range(20) for row in daily(f"u{user}", 20)])
    interactions, _ = split_interactions(ratings, split_settings(method, tune_share=0.5), seed=0)
    rows = interactions.to_pylist()
    pairs = {split: {(row["user_id"], row["item_id"]) for row in rows if row["split"] == split} for split in SPLITS}
    assert pairs["tune"]
    assert sum(map(len, pairs.values())) == len(set().union(*pairs.values()))


@pytest.mark.parametrize(
    ("method", "times"), [*[(method, True) for method in METHODS], *[(method, False) for method in TIMELESS_METHODS]]
)
def test_leak_held_out_ratings_change_nothing_that_training_sees(method, times):
    rows = [row if times else row[:3] for user in range(20) for row in daily(f"u{user}", 5 + user)]
    original, _ = split_interactions(ratings_table(rows), split_settings(method), seed=0)
    held_out = {
        (row["user_id"], row["item_id"])
        for row in original.to_pylist()
        if row["split"] in {"tune", "validation", "test"}
    }
    assert held_out
    planted = [(user, item, 1.0 if (user, item) in held_out else rating, *rest) for user, item, rating, *rest in rows]
    changed, _ = split_interactions(ratings_table(planted), split_settings(method), seed=0)
    unchanged = [name for name in INTERACTIONS.names if name not in {"rating", "label"}]
    assert changed.select(unchanged) == original.select(unchanged)
    assert not changed["label"].equals(original["label"])
    assert train_rows(changed) == train_rows(original)


def train_rows(interactions):
    return [row for row in interactions.to_pylist() if row["split"] == "train"]


def test_what_cannot_be_split_is_refused():
    ratings = ratings_table(daily("a", 9, rating=0.0))
    with pytest.raises(DataError, match="none of 9 ratings is left"):
        split_interactions(ratings, split_settings(explicit_only=True), seed=0)
    with pytest.raises(ConfigError, match=r"validation_share \+ test_share is 1, expected less than 1"):
        split_interactions(ratings, split_settings(test_share=0.5, validation_share=0.5), seed=0)


@pytest.mark.parametrize(
    ("timed", "num_late", "method"), [(True, 100, "time_cut"), (True, 99, "last_share"), (False, 100, "last_share")]
)
def test_auto_cuts_by_time_where_there_are_times_and_that_leaves_users_to_test(timed, num_late, method):
    """Users come for 20 days and go: of those who were there early only the late ones are there in the test's days."""
    early = [row for user in range(150) for row in daily(f"e{user:03}", 20)]
    late = [row for user in range(num_late) for row in daily(f"e{user:03}", 4, first=90)]
    ratings = ratings_table(early + late)
    if not timed:
        ratings = ratings.set_column(3, "event_time", pa.nulls(len(ratings), ratings["event_time"].type))

    interactions, counts = split_interactions(ratings, split_settings("auto", test_share=0.05), seed=0)

    tested = {row["user_id"] for row in interactions.to_pylist() if row["split"] == "test"}
    assert counts.method == method
    assert len(tested) == (150 if method == "last_share" else num_late)
