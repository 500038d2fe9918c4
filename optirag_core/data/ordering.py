"""Each user's interactions in order: by time, or by a seeded shuffle where the publisher gives no time.

Shapes: R ratings, N interactions that are left after duplicates are dropped, U users, I items.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import ARRIVAL
from optirag_core.errors import DataError


@dataclass(frozen=True)
class Sequences:
    """All users' interactions, users by id, each in order.

    Attributes:
        user_ids: [U], sorted.
        user: [N], index into `user_ids`, ascending.
        row: [N], index into the ratings' rows.
        time: [N] microseconds since 1970, or None.
        position: [N], from 0 within each user.
        length: [N], number of interactions of the row's user.
        num_past: [N], the user's strictly earlier interactions; without times, those at lower positions.
    """

    user_ids: pa.Array
    user: np.ndarray
    row: np.ndarray
    time: np.ndarray | None
    position: np.ndarray
    length: np.ndarray
    num_past: np.ndarray


def ordered_sequences(ratings: pa.Table, seed: int) -> Sequences:
    """Order ratings by user and time, ties in file order; keep the first of a repeated (user, item).

    Without times a user's order is drawn from the seed, the user's id and the item ids alone: other users' rows, and
    all ratings, do not change it. Events come behind it as they arrived.

    Args:
        ratings: `schema.RATINGS`, [R]; with `schema.ARRIVAL` where there are events among them.
        seed: of the order where no times exist.

    Raises:
        DataError: only some ratings have a time.
    """
    user_ids, user = _sorted_codes(ratings["user_id"])
    item_ids, item = _sorted_codes(ratings["item_id"])
    time = _times(ratings["event_time"])
    if time is None:
        row = np.lexsort((_pair_keys(user_ids, user, item_ids, item, seed), _arrivals(ratings), user))
    else:
        row = np.lexsort((time, user))  # stable: equal times stay in file order
    pair = user[row].astype(np.int64) * len(item_ids) + item[row]
    row = row[np.sort(np.unique(pair, return_index=True)[1])]  # first of each pair
    user = user[row]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    length = np.diff(np.append(starts, len(user)))
    position = np.arange(len(user)) - np.repeat(starts, length)
    time = None if time is None else time[row]
    num_past = position if time is None else num_earlier(user, time, position)
    return Sequences(user_ids, user, row, time, position, np.repeat(length, length), num_past)


def num_earlier(user: np.ndarray, time: np.ndarray, position: np.ndarray) -> np.ndarray:
    """[N], the number of the user's strictly earlier interactions: the position of the first one at the same time.

    Args:
        user, time, position: [N] each, users together and each in order.
    """
    new_moment = (np.diff(user, prepend=-1) != 0) | (np.diff(time, prepend=time[:1] - 1) != 0)
    return position[np.maximum.accumulate(np.where(new_moment, np.arange(len(user)), 0))]


def seeded_keys(ids: pa.Array, salt: str) -> np.ndarray:
    """[U] pseudo-random uint64, each from the salt and its own id alone."""
    digests = b"".join(
        blake2b(value.encode(), digest_size=8, key=salt.encode()[:64]).digest() for value in ids.to_pylist()
    )
    return np.frombuffer(digests, "<u8")


def _sorted_codes(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Distinct values, sorted, and each row's index into them."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(order), rank[encoded.indices.to_numpy()]


def _times(column: pa.ChunkedArray) -> np.ndarray | None:
    if column.null_count == len(column):
        return None
    if column.null_count:
        raise DataError(
            f"event_time is null in {column.null_count:,} of {len(column):,} ratings: "
            "give a time to all of them, or to none"
        )
    return column.cast(pa.int64()).to_numpy()


def _arrivals(ratings: pa.Table) -> np.ndarray:
    """[R], events counted from 1, and 0 for everything else."""
    if ARRIVAL.name not in ratings.column_names:
        return np.zeros(len(ratings), np.int64)
    return pc.fill_null(pc.add(ratings[ARRIVAL.name], 1), 0).to_numpy()


def _pair_keys(user_ids: pa.Array, user: np.ndarray, item_ids: pa.Array, item: np.ndarray, seed: int) -> np.ndarray:
    """[R] uint64, a hash of (seed, user id, item id): splitmix64's finaliser over the two ids' own hashes."""
    mixed = seeded_keys(user_ids, f"{seed}:user")[user] + seeded_keys(item_ids, f"{seed}:item")[item]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
