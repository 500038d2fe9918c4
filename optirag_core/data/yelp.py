"""Yelp Open Dataset: `yelp_academic_dataset_{business,user,review}.json`.

The users' file carries `average_stars` and `fans` as they were on the day of the dump, after every review: they are
never read. Prompts show a mean of training ratings instead, and no fans.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.config.data import DatasetSettings
from optirag_core.data.json_lines import Records, date_time, identifier, read_records, stars, text_of
from optirag_core.data.raw_dataset import RawDataset, table_of
from optirag_core.data.raw_files import find_file, require_file
from optirag_core.data.schema import RATINGS
from optirag_core.data.text import clean_text

PREFIX = "yelp_academic_dataset_"
EXTENSIONS = (".json", ".jsonl")
USERS_SCHEMA = pa.schema([("user_id", pa.string()), ("joined", pa.string())])
ITEMS_SCHEMA = pa.schema([(name, pa.string()) for name in ("item_id", "title", "city", "state", "categories")])


def load_yelp(folder: Path, settings: DatasetSettings) -> RawDataset:
    """Read businesses and reviews, and users where their file is present.

    Reviews of businesses that the business file lacks are kept, with the id as title; users whom the users' file lacks
    get a profile of nulls. Both are counted.

    Raises:
        DataError: the business or review file is missing or damaged.
        MalformedLines: too many lines of a file are malformed.
    """
    share = settings.max_malformed_share
    reviews = read_records(require_file(folder, f"{PREFIX}review", EXTENSIONS), share, _rating)
    businesses = read_records(require_file(folder, f"{PREFIX}business", EXTENSIONS), share, _business)
    users_file = find_file(folder, f"{PREFIX}user", EXTENSIONS)
    profiles = Records([]) if users_file is None else read_records(users_file, share, _user)
    items = _by_id([item for _, item, _, _ in reviews.values], businesses.values, ITEMS_SCHEMA)
    users = _by_id([user for user, _, _, _ in reviews.values], profiles.values, USERS_SCHEMA)
    warnings = [*reviews.warnings, *businesses.warnings, *profiles.warnings, *_missing_items(reviews, businesses)]
    num_unknown_users = len(users) - len({user for user, *_ in profiles.values})
    if users_file is None:
        warnings.append(f"no {PREFIX}user.json in {folder}: when users joined is unknown")
    elif num_unknown_users:
        warnings.append(f"{num_unknown_users:,} users of reviews are not in {users_file.name}: profiles unknown")
    return RawDataset(
        ratings=table_of(reviews.values, RATINGS),
        users=table_of(list(users.values()), USERS_SCHEMA),
        items=table_of([(item, title or item, *rest) for item, title, *rest in items.values()], ITEMS_SCHEMA),
        warnings=tuple(warnings),
        counts={
            "malformed_ratings": reviews.num_malformed,
            "malformed_items": businesses.num_malformed,
            "malformed_users": profiles.num_malformed,
            "items_without_title": sum(title is None for _, title, *_ in items.values()),
            "users_without_profile": num_unknown_users,
            "num_ratings": len(reviews.values),
            "num_users": len(users),
            "num_items": len(items),
        },
    )


def _by_id(seen: list[str], listed: list[tuple[Any, ...]], schema: pa.Schema) -> dict[str, tuple[Any, ...]]:
    """Rows by id: nulls for those only seen in reviews; the first of a repeated listed id counts."""
    unknown = (None,) * (len(schema) - 1)
    rows: dict[str, tuple[Any, ...]] = {value: (value, *unknown) for value in seen}
    rows.update({row[0]: row for row in reversed(listed)})
    return rows


def _missing_items(reviews: Records[Any], businesses: Records[Any]) -> list[str]:
    known = {item for item, *_ in businesses.values}
    missing = [item for _, item, _, _ in reviews.values if item not in known]
    if not missing:
        return []
    return [
        f"{len(missing):,} of {len(reviews.values):,} reviews are of {len(set(missing)):,} businesses that the "
        "business file lacks: their ids stand in for titles"
    ]


def _rating(review: Mapping[str, Any]) -> tuple[str, str, float, datetime]:
    return (
        identifier(review, "user_id"),
        identifier(review, "business_id"),
        stars(review, "stars"),
        date_time(review, "date"),
    )


def _business(record: Mapping[str, Any]) -> tuple[str | None, ...]:
    texts = (clean_text(text_of(record, name)) or None for name in ("name", "city", "state", "categories"))
    return (identifier(record, "business_id"), *texts)


def _user(record: Mapping[str, Any]) -> tuple[str, str | None]:
    joined = text_of(record, "yelping_since")[:10]
    return identifier(record, "user_id"), joined if re.fullmatch(r"\d{4}-\d{2}-\d{2}", joined, re.ASCII) else None
