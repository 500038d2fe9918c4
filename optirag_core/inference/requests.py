"""Where requests come from: the test split, all users, or files; as a stream, with what identifies them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.config.run import RequestsSettings
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS, require_columns
from optirag_core.data.splits import requests_for
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.assembly import Request, requests_from
from optirag_core.retrieval.candidates import Candidates
from optirag_core.runs.requests import grouped, open_requests

USERS_PER_LOOKUP = 4096
"""Users whose candidates are looked up at a time."""


@dataclass(frozen=True)
class Source:
    """Requests as a stream."""

    name: str
    tables: Iterator[pa.Table]  # of REQUESTS; a user's rows are contiguous
    identity: Mapping[str, Any]  # what tells these requests from others


def open_source(settings: Settings, artifacts: Artifacts, scratch: Path) -> Source:
    """The requests that the settings name.

    Args:
        scratch: a local folder for files that come from elsewhere or have to be grouped by user.

    Raises:
        DataError: a file is damaged, or has other columns than requests or pairs.
    """
    location, top_k = settings.requests.path, settings.requests.all_items_top_k
    if location is not None:
        files = open_requests(location, settings.storage, scratch)
        source = Source(location, grouped(files, scratch), {"files": dict(files.sha256)})
    else:
        dataset = Dataset.load(artifacts["dataset"].path)
        test = settings.requests, settings.seed
        source = _all_users(dataset) if top_k is not None else _test_split(dataset, *test)
    if top_k is None:
        return source
    candidates = Candidates.load(artifacts["retriever"].path, artifacts["dataset"].path)
    filled = _with_candidates(source.tables, candidates, top_k)
    return Source(source.name, filled, {**source.identity, "all_items_top_k": top_k})


def request_for(dataset: Dataset, user_id: str, item_id: str) -> Request:
    """A request for one pair, as its split asks it, so that the prompt is the one that was scored.

    A pair that no split asks is asked with all that is known.
    """
    rows = dataset.interactions
    mine = rows.filter(pc.equal(rows["user_id"], user_id))
    [split] = mine.filter(pc.equal(mine["item_id"], item_id))["split"].to_pylist() or [None]
    if split is None or split == "train":
        return Request(user_id, [item_id])
    [request] = requests_from(requests_for(mine, split))
    return Request(user_id, [item_id], request.as_of, request.as_of_position)


def _all_users(dataset: Dataset) -> Source:
    users = pa.table({"user_id": dataset.users["user_id"]})
    for field in REQUESTS:
        if field.name not in users.column_names:
            users = users.append_column(field, pa.nulls(len(users), field.type))
    return Source("the users table", iter([users]), {"users": "all"})


def test_requests(dataset: Dataset, max_users: int | None, seed: int) -> pa.Table:
    """The test split's requests with their `labels`, or a sample of them drawn by the seed: a larger one holds it."""
    requests = requests_for(dataset.interactions, "test")
    if max_users and max_users < len(requests):
        chosen = np.random.default_rng(seed).permutation(len(requests))[:max_users]
        requests = requests.take(np.sort(chosen))
    return requests


def _test_split(dataset: Dataset, settings: RequestsSettings, seed: int) -> Source:
    requests = test_requests(dataset, settings.max_users, seed)
    identity: dict[str, Any] = {"split": "test", "max_users": settings.max_users}
    if settings.max_users and settings.max_users <= len(requests):
        identity |= {"seed": seed}
    table = require_columns(requests, REQUESTS, "requests").select(REQUESTS.names)
    return Source("the test split (dataset.min_history, dataset.split)", iter([table]), identity)


def _with_candidates(tables: Iterator[pa.Table], candidates: Candidates, k: int) -> Iterator[pa.Table]:
    """Requests whose users have no candidate list get the retriever's best items."""
    field = REQUESTS.field("item_ids")
    for table in tables:
        for start in range(0, len(table), USERS_PER_LOOKUP):
            part = table.slice(start, USERS_PER_LOOKUP)
            without = part.filter(pc.is_null(part["item_ids"]))
            asked = requests_from(without)
            found = iter(
                candidates.top(
                    [request.user_id for request in asked], k,
                    as_of=[request.as_of for request in asked],
                    as_of_position=[request.as_of_position for request in asked],
                )
            )  # fmt: skip
            lists = [next(found) if items is None else items for items in part["item_ids"].to_pylist()]
            yield part.set_column(part.column_names.index(field.name), field, pa.array(lists, field.type))
