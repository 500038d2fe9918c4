"""Amazon reviews, 2018 edition (Ni et al., 2019): `<Category>_5.json` or `<Category>.json`, `meta_<Category>.json`.

Review times are midnights in UTC, so a user's reviews of one day are ties.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from optirag_core.config.data import DatasetSettings
from optirag_core.data.json_lines import Records, identifier, read_records, stars, text_of, unix_time
from optirag_core.data.raw_dataset import RawDataset, table_of
from optirag_core.data.raw_files import find_file, require_file, require_folder
from optirag_core.data.schema import RATINGS, USERS
from optirag_core.data.text import clean_text
from optirag_core.errors import DataError

EXTENSIONS = (".json", ".jsonl")
ITEMS_SCHEMA = pa.schema(
    [("item_id", pa.string()), ("title", pa.string()), ("price", pa.float32()), ("brand", pa.string())]
)
_REVIEWS_NAME = re.compile(r"(?!meta_)(?P<stem>.+?)\.jsonl?(?:\.gz|\.zip)?")
_PRICE = re.compile(r"\$?\s*(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")  # not `$1 - $2`, not the page's style sheets
_SCRIPT = "getTime()"  # some titles are the page's JavaScript


def load_amazon(folder: Path, settings: DatasetSettings) -> RawDataset:
    """Read one category's reviews and, where present, its metadata.

    Items without metadata or with an unusable title are titled by their id, and counted.

    Raises:
        DataError: no reviews, several categories and no `dataset.category`, or a damaged file.
        MalformedLines: too many lines of a file are malformed, as are those of the 2014 edition, which are not JSON.
    """
    require_folder(folder)
    stem = _reviews_stem(folder, settings.category)
    metadata_stem = f"meta_{stem.removesuffix('_5')}"
    share = settings.max_malformed_share
    reviews = read_records(require_file(folder, stem, EXTENSIONS), share, _rating)
    metadata_file = find_file(folder, metadata_stem, EXTENSIONS)
    metadata = Records([]) if metadata_file is None else read_records(metadata_file, share, _item)
    items: dict[str, tuple[str, str | None, float | None, str | None]] = {
        item: (item, None, None, None) for _, item, _, _ in reviews.values
    }
    items.update({row[0]: row for row in reversed(metadata.values)})  # reversed: the first of a repeated id counts
    users = dict.fromkeys(user for user, _, _, _ in reviews.values)
    num_untitled = sum(title is None for _, title, _, _ in items.values())
    untitled = []
    if num_untitled:
        reason = f"there is no {metadata_stem}.json" if metadata_file is None else f"{metadata_stem} gives them none"
        untitled = [f"{num_untitled:,} of {len(items):,} items have no title ({reason}): their ids stand in for it"]
    return RawDataset(
        ratings=table_of(reviews.values, RATINGS),
        users=table_of([(user,) for user in users], USERS),
        items=table_of([(item, title or item, *rest) for item, title, *rest in items.values()], ITEMS_SCHEMA),
        warnings=(*reviews.warnings, *metadata.warnings, *untitled),
        counts={
            "malformed_ratings": reviews.num_malformed,
            "malformed_items": metadata.num_malformed,
            "items_without_title": num_untitled,
            "num_ratings": len(reviews.values),
            "num_users": len(users),
            "num_items": len(items),
        },
    )


def _reviews_stem(folder: Path, category: str | None) -> str:
    """The reviews' file without its ending; `Gift_Cards` also stands for Gift_Cards_5 where only that is there."""
    stems = sorted({match["stem"] for path in folder.iterdir() if (match := _REVIEWS_NAME.fullmatch(path.name))})
    if not stems:
        raise DataError(f"no <Category>.json (plain, .gz or .zip) with reviews in {folder}")
    for wanted in () if category is None else (category, f"{category}_5"):
        if wanted in stems:
            return wanted
    if category is not None:
        raise DataError(f"no reviews of dataset.category {category!r} in {folder}; it has {', '.join(stems)}")
    if len(stems) > 1:
        raise DataError(f"{folder} has reviews of {', '.join(stems)}: choose one with --dataset.category")
    return stems[0]


def _rating(review: Mapping[str, Any]) -> tuple[str, str, float, datetime]:
    return (
        identifier(review, "reviewerID"),
        identifier(review, "asin"),
        stars(review, "overall"),
        unix_time(review, "unixReviewTime"),
    )


def _item(record: Mapping[str, Any]) -> tuple[str, str | None, float | None, str | None]:
    title = text_of(record, "title")
    return (
        identifier(record, "asin"),
        None if _SCRIPT in title else clean_text(title) or None,
        _price(text_of(record, "price")),
        clean_text(text_of(record, "brand")) or None,
    )


def _price(raw: str) -> float | None:
    match = _PRICE.fullmatch(raw.strip())
    return float((match[1] + (match[2] or "")).replace(",", "")) if match else None
