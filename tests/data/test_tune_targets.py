"""How many interactions each user gives to tune, which ones, and that tune prompts then look like those of test."""

import numpy as np
import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.data.loading import load_raw
from optirag_core.data.ordering import ordered_sequences
from optirag_core.data.splits import history_lengths, split_interactions
from optirag_core.data.tune_targets import tune_targets

from .conftest import book_settings, ratings_table


def split_settings(tune_share, **changes):
    return DatasetSettings.model_validate({"split": {"tune_share": tune_share}, **changes})


def chosen(lengths, settings, seed=0, held_out=0):
    """Each user's positions that become tune, and how many are wanted; the last `held_out` of each are not in train."""
    rows = [(user, f"i{number}", 5.0) for user, length in lengths.items() for number in range(length)]
    sequences = ordered_sequences(ratings_table(rows), seed)
    targets, num_wanted = tune_targets(sequences.position < sequences.length - held_out, sequences, settings, seed)
    users = sequences.user_ids.to_pylist()
    found = {
        user: sorted(sequences.position[targets[sequences.user[targets] == at]].tolist())
        for at, user in enumerate(users)
    }
    return found, num_wanted


@pytest.mark.parametrize(
    ("num_train", "positions"),
    [
        (3, []),  # the third row has 2 past ones, min_history is 3
        (4, [3]),
        (9, [8]),
        (10, [8, 9]),
        (14, [12, 13]),
        (15, [12, 13, 14]),
        (39, [32, 33, 34, 35, 36, 37, 38]),
        (40, [32, 33, 34, 35, 36, 37, 38, 39]),
    ],
)
def test_a_user_gives_the_last_fifth_and_at_least_one(num_train, positions):
    assert chosen({"a": num_train}, split_settings(1.0))[0] == {"a": positions}
    assert chosen({"a": num_train + 2}, split_settings(1.0), held_out=2)[0] == {"a": positions}


@pytest.mark.parametrize(("tune_share", "most"), [(0.02, 8), (0.021, 16), (0.04, 16), (0.05, 32), (1.0, 80)])
def test_a_user_gives_at_most_eight_or_what_the_share_needs(tune_share, most):
    """2 users with 397 eligible rows each: 0.02 asks for 16 of 794, 0.021 for 17, 0.04 for 32, 0.05 for 40; a fifth
    of each user's rows is 80."""
    found, num_wanted = chosen(dict.fromkeys("ab", 400), split_settings(tune_share))
    assert num_wanted == round(794 * tune_share)
    first, second = sorted(found.values(), key=len)
    assert second == list(range(400 - most, 400))
    assert len(first) == min(most, num_wanted - most)


def test_min_history_comes_before_the_fifth():
    assert chosen({"a": 10}, split_settings(1.0, min_history=9))[0] == {"a": [9]}


def test_whole_users_are_drawn_until_the_share_is_reached():
    """4 users with 10 rows, 7 of them eligible: a share of 0.2 asks for 6 of 28, three users give 2 each."""
    found, num_wanted = chosen(dict.fromkeys("abcd", 10), split_settings(0.2))
    assert num_wanted == 6
    assert sorted(map(len, found.values())) == [0, 2, 2, 2]
    others = [chosen(dict.fromkeys("abcd", 10), split_settings(0.2), seed)[0] for seed in range(1, 9)]
    assert len({tuple(sorted(user for user in each if each[user])) for each in others}) > 1


def test_the_last_user_drawn_gives_the_latest_interactions_alone():
    """A share of 0.1 asks for 3 of 28: one user gives both, another one the last."""
    found, num_wanted = chosen(dict.fromkeys("abcd", 10), split_settings(0.1))
    assert num_wanted == 3
    assert sorted(found.values()) == [[], [], [8, 9], [9]]


def lengths_of(interactions, split):
    """Shares of requests with 3, 4 ... 14, 15 or more earlier interactions."""
    lengths = {int(length): count for length, count in history_lengths(interactions)[split].items()}
    shares = np.bincount(np.minimum(list(lengths), 15), weights=list(lengths.values()), minlength=16)[3:]
    return shares / shares.sum()


def test_tune_prompts_of_bookcrossing_are_as_long_as_those_of_test(real_data):
    """Total variation over 3, 4 ... 15 or more: 10.2 % (27.6 % where each user gives the last 5)."""
    settings = book_settings(
        explicit_only=True, like_threshold=7, split={"method": "leave_last_out", "tune_share": 0.25}
    )
    raw = load_raw(settings, folder=real_data("bookcrossing"))
    interactions, counts = split_interactions(raw.ratings, settings, seed=0)
    tune, test = lengths_of(interactions, "tune"), lengths_of(interactions, "test")
    assert abs(tune - test).sum() / 2 < 0.12
    assert tune[0] == pytest.approx(0.14, abs=0.01)  # exactly 3
    assert test[0] == pytest.approx(0.19, abs=0.01)
    assert counts.tune > 20_000
