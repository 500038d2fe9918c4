"""What stays of an erased user: a hash of the id. Whoever is on the list gets into no data set again."""

import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.raw_dataset import RawDataset
from optirag_core.storage.base import Storage

FOLDER = "erasures"
_JOURNAL = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})\.json")


def token_of(user_id: str) -> str:
    """32 hex digits. Whoever can guess ids can tell whether one of them is on the list."""
    return blake2b(user_id.encode(), digest_size=16, person=b"optirag erased").hexdigest()


def journal_file(token: str) -> str:
    return f"{FOLDER}/{token}.json"


def erased_tokens(storage: Storage) -> frozenset[str]:
    """Of all users whose erasure was begun in this workspace."""
    return frozenset(match[1] for path in storage.list(FOLDER) if (match := _JOURNAL.fullmatch(path)))


def without_erased(raw: RawDataset, storage: Storage) -> RawDataset:
    """The data without the users who were erased from the workspace; their number is in the counts."""
    tokens = erased_tokens(storage)
    if not tokens:
        return raw
    users = raw.users["user_id"].to_pylist()
    stays = np.array([token_of(user_id) not in tokens for user_id in users], dtype=bool)
    gone = pa.array([user_id for user_id, kept in zip(users, stays, strict=True) if not kept], pa.string())
    ratings = raw.ratings.filter(pc.invert(pc.is_in(raw.ratings["user_id"], value_set=gone)))
    counts: Mapping[str, int] = {
        **raw.counts, "num_ratings": len(ratings), "num_users": int(stays.sum()), "erased_users": len(gone),
    }  # fmt: skip
    return replace(raw, ratings=ratings, users=raw.users.filter(pa.array(stays)), counts=counts)
