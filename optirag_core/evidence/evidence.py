"""What the interactions before a moment say about (user, item) pairs: liked shares, stars and counts by key.

Shape legend: `N` known interactions, `I` items, `A` attributes, `n` pairs, `E` keys of these pairs, `F` features.

The keys of a pair come in twos, of everybody and of the user alone:

    everybody   all   item   author A   author B ...
    the user    user  own    user, A    user, B  ...       own: the rows of exactly this pair

What counts of them, so that nothing tells what is asked:

- never the pair's own rows, whoever asks;
- where all interactions have times, only rows strictly before the pair's moment, of anybody;
- elsewhere all rows, but none of the user at or after the pair's `as_of_position`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.mapped import SortedIds, open_mapped, write_mapped
from optirag_core.data.schema import INTERACTIONS, ITEMS, PAIRS, require_columns
from optirag_core.errors import DataError
from optirag_core.evidence.attributes import Values, values_of
from optirag_core.evidence.counts import Counts
from optirag_core.evidence.running import RunningCounts
from optirag_core.evidence.smoothing import feature_names, smoothed

INFO_FILE = "evidence.json"

PAIRS_AT_ONCE = 500_000
"""Pairs looked up at a time: bounds the memory of a call."""

OWN = 3
"""Place of the pair's own rows among the counts."""

LAST_POSITION = np.iinfo(np.int32).max
"""Hides nothing."""


@dataclass(frozen=True)
class Asked:
    """Pairs as numbers."""

    user: np.ndarray  # [n] int64, -1 for one without rows
    item: np.ndarray  # [n] int64, -1 for one that neither the rows nor the items have
    before: np.ndarray  # [n] order of the moment: rank of its time, or the position


@dataclass(frozen=True)
class Keys:
    """The keys of one kind that some pairs have."""

    pair: np.ndarray | None  # [E] place of the pair, ascending; None: each pair has one
    everybody: np.ndarray  # [E] int64
    user: np.ndarray  # [E] int64; -1 where nobody has it


class Evidence:
    """Counts of all keys, mapped from files when opened; make one with `of` or `open`."""

    def __init__(
        self, users: SortedIds, items: SortedIds, attributes: Mapping[str, Values],
        counts: Sequence[Counts], times: np.ndarray | None,
    ) -> None:  # fmt: skip
        """
        Args:
            attributes: [A] name -> the values of `items`.
            counts: [2 (A + 2)] of all, user, item, own, then everybody's and the user's of each attribute.
            times: distinct times, ascending, in microseconds since 1970 (UTC); None where not every row has one.
        """
        self.attributes = tuple(attributes)
        self.names = feature_names(self.attributes)
        self._users, self._items, self._values = users, items, tuple(attributes.values())
        self._counts, self._times = counts, times

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time."""
        return self._times is not None

    @classmethod
    def of(cls, interactions: pa.Table, items: pa.Table, attributes: Sequence[str]) -> Self:
        """Evidence of a table of `INTERACTIONS`; its rows of the test split are left out.

        Args:
            items: `ITEMS` and the attributes' columns.

        Raises:
            ConfigError: an attribute is no column of items, or one that cannot be counted.
            DataError: a column is missing or of another type.
        """
        interactions = require_columns(interactions, INTERACTIONS, "interactions")
        items = require_columns(items, ITEMS, "items")
        timed = not interactions["event_time"].null_count
        known = interactions.filter(pc.not_equal(interactions["split"], "test"))
        user_ids = SortedIds.of(known["user_id"])
        item_ids = SortedIds.of(pa.chunked_array([*known["item_id"].chunks, *items["item_id"].chunks], pa.string()))
        values = {name: values_of(items, name, item_ids) for name in attributes}
        labels, stars, times = known["label"].to_numpy(), known["rating"].to_numpy(), None
        orders = known["position"].to_numpy()
        if timed:
            times, orders = np.unique(known["event_time"].cast(pa.int64()).to_numpy(), return_inverse=True)
        rows = Asked(user_ids.rows(known["user_id"]), item_ids.rows(known["item_id"]), orders)
        counts = []
        for keys in _keys(rows, values.values(), len(item_ids)):
            row = slice(None) if keys.pair is None else keys.pair
            columns = labels[row], stars[row]
            counts.append(Counts.of(keys.everybody, *columns, orders[row] if timed else None))
            counts.append(Counts.of(keys.user, *columns, orders[row]))
        return cls(user_ids, item_ids, values, counts, times)

    def features(self, pairs: pa.Table) -> np.ndarray:
        """What is known of each pair at its moment; of an unknown user, item or attribute value the prior alone.

        Args:
            pairs: `PAIRS` [n]. A position is the user's own and says nothing of others' times: on data with times the
                moment is `as_of`, as `Histories.past` finds it, and null is after all rows.

        Returns:
            [n, F] float32, the columns of `names`.

        Raises:
            DataError: a column is missing, a pair of timed data has a position alone, or one of untimed data a time.
        """
        pairs = require_columns(pairs, PAIRS, "pairs").select(PAIRS.names)
        self._require_moments(pairs)
        found = np.empty((len(pairs), len(self.names)), np.float32)
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            everybody, *keys = self.sums(pairs.slice(start, PAIRS_AT_ONCE))
            found[start : start + PAIRS_AT_ONCE] = smoothed(everybody, keys)
        return found

    def sums(self, pairs: pa.Table) -> list[np.ndarray]:
        """[3, n] count, liked and stars of: all, user, item, and everybody's and the user's of each attribute."""
        return self.summed(self._counts, self._asked(pairs))

    def summed(self, counts: Sequence[Counts | RunningCounts], asked: Asked) -> list[np.ndarray]:
        """`sums` of these counts, which may be of other rows of the same items."""
        sums, num_pairs = [], len(asked.user)
        some_hidden = np.any(asked.before < LAST_POSITION)
        own = counts[OWN].sums(own_keys(asked, len(self._items)), asked.before)  # [3, n]
        in_twos = zip(counts[::2], counts[1::2], strict=True)
        for keys, (everybody, user) in zip(self.keys(asked), in_twos, strict=True):
            pair = np.arange(num_pairs) if keys.pair is None else keys.pair
            before = asked.before[pair]
            mine = user.sums(keys.user, before)  # [3, E]
            all_rows = everybody.sums(keys.everybody, before if self.timed else None)
            if not self.timed and some_hidden:  # by the position, of this user alone
                all_rows += mine - user.sums(keys.user)
            for counted in (all_rows, mine):
                others = counted - own[:, pair]
                sums.append(others if keys.pair is None else _summed(others, pair, num_pairs))
        del sums[OWN]  # the pair's rows but the pair's rows
        return sums

    def keys(self, asked: Asked) -> Iterator[Keys]:
        """The keys of all counts, in twos."""
        return _keys(asked, self._values, len(self._items))

    def _require_moments(self, pairs: pa.Table) -> None:
        wrong = pc.is_valid(pairs["as_of"])
        reason = "an as_of, but not every interaction has an event_time: leave as_of null"
        if self.timed:
            wrong = pc.and_(pc.is_valid(pairs["as_of_position"]), pc.invert(wrong))
            reason = "an as_of_position alone, but the interactions have times: give as_of, the time at that position"
        if num_wrong := pc.sum(wrong).as_py():
            raise DataError(f"evidence: {num_wrong:,} pairs have {reason}")

    def _asked(self, pairs: pa.Table) -> Asked:
        if self._times is not None:
            moments = pc.fill_null(pairs["as_of"].cast(pa.int64()), np.iinfo(np.int64).max)
            before = np.searchsorted(self._times, np.asarray(moments))
        else:
            positions = pc.fill_null(pairs["as_of_position"], LAST_POSITION)
            before = np.maximum(positions.to_numpy().astype(np.int64), 0)
        return Asked(self._users.rows(pairs["user_id"]), self._items.rows(pairs["item_id"]), before)

    def save(self, folder: Path) -> None:
        """Write the counts into an existing local folder."""
        columns = {"users": self._users.array, "items": self._items.array}
        for number, values in enumerate(self._values):
            columns |= {f"values{number}_first": values.first, f"values{number}": values.value}
        if self.timed:
            columns["times"] = self._times
        for name, column in columns.items():
            write_mapped(pa.record_batch({"column": column}), folder / f"{name}.arrow")
        for number, counts in enumerate(self._counts):
            counts.save(folder, f"counts{number}")
        info = {"attributes": self.attributes, "timed": self.timed}
        (folder / INFO_FILE).write_text(json.dumps(info, indent=2), encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `save` wrote; all processes of a machine share its memory."""
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))

        def column(name: str) -> pa.Array:
            return open_mapped(folder / f"{name}.arrow").column(0)

        attributes = {
            name: Values(column(f"values{number}_first").to_numpy(), column(f"values{number}").to_numpy())
            for number, name in enumerate(info["attributes"])
        }
        counts = [Counts.open(folder, f"counts{number}") for number in range(2 * (len(attributes) + 2))]
        times = column("times").to_numpy() if info["timed"] else None
        return cls(SortedIds(column("users")), SortedIds(column("items")), attributes, counts, times)


def _keys(asked: Asked, values: Iterable[Values], num_items: int) -> Iterator[Keys]:
    """All and user, item and own, then of each attribute."""
    yield Keys(None, np.zeros(len(asked.user), np.int64), asked.user)
    yield Keys(None, asked.item, own_keys(asked, num_items))
    for attribute in values:
        pair, value = attribute.of(asked.item)
        user = asked.user[pair]
        yield Keys(pair, value, np.where(user < 0, -1, user * attribute.num_values + value))


def own_keys(asked: Asked, num_items: int) -> np.ndarray:
    """[n] keys of exactly these pairs; -1 where nobody has it."""
    known = (asked.user >= 0) & (asked.item >= 0)
    return np.where(known, asked.user * num_items + asked.item, -1)


def _summed(sums: np.ndarray, pair: np.ndarray, num_pairs: int) -> np.ndarray:
    """[3, E] of each key -> [3, n] of all keys of a pair."""
    return np.stack([np.bincount(pair, row, minlength=num_pairs) for row in sums])
