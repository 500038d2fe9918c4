"""Small data sets with histories, attributes and profiles."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import RATINGS
from optirag_core.data.splits import split_interactions

ATTRIBUTES, PROFILE = ("author",), ("location", "age")
START = datetime(2020, 1, 1, tzinfo=UTC)


def settings_of(**sections: object) -> Settings:
    """Short histories and few epochs."""
    raw = {
        "dataset": {"like_threshold": 3, "split": {"method": "last_share", "tune_share": 0.2}},
        "prompt": {"template": "books", "max_history": 4},
        "baselines": {"num_trials": 2, "max_epochs": 2, "embedding_dim": 4, "hidden": [8], "batch_size": 64},
    }
    return settings_from(raw | sections)


def dataset_of(
    users: np.ndarray, items: np.ndarray, ratings: np.ndarray, settings: Settings, *, timed: bool
) -> Dataset:
    """Ratings split as the settings say; days are times, several ratings of a user share one.

    Args:
        users, items, ratings: [N] numbers.
    """
    moments = [START + timedelta(days=int(row) // 2 % 40) if timed else None for row in range(len(users))]
    names = ([f"{letter}{each:03}" for each in of] for letter, of in (("u", users), ("i", items)))
    columns = [*names, ratings.astype(np.float32), moments]
    table = pa.table([pa.array(of, field.type) for of, field in zip(columns, RATINGS, strict=True)], schema=RATINGS)
    interactions, _ = split_interactions(table, settings.dataset, seed=0)
    user_ids, item_ids = (sorted(set(table[name].to_pylist())) for name in ("user_id", "item_id"))
    profiles = pa.table(
        {
            "user_id": user_ids,
            "location": pa.array([("USA", "Peru", None)[int(user[1:]) % 3] for user in user_ids]),
            "age": pa.array([20 + int(user[1:]) for user in user_ids], pa.int16()),
            "fans": pa.array([int(user[1:]) for user in user_ids]),
        }
    )
    authors = pa.array([(f"author {int(item[1:]) % 5}", None)[int(item[1:]) == 7] for item in item_ids])
    titles = pa.table({"item_id": item_ids, "title": item_ids, "author": authors})
    return Dataset(interactions, profiles, titles, {})


def random_dataset(
    settings: Settings, *, timed: bool, num_users: int = 30, num_items: int = 25, seed: int = 0
) -> Dataset:
    """Users with one to some dozen ratings each."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rng.integers(1, num_items, num_users))
    items = np.concatenate([rng.permutation(num_items)[:count] for count in np.bincount(users)])
    order = rng.permutation(len(users))
    return dataset_of(users[order], items[order], rng.integers(1, 6, len(users)), settings, timed=timed)
