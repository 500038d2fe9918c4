"""The values of each item's attributes: author, brand, genres ...

Shape legend: `I` items, `V` distinct values, `L` (item, value) pairs.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.mapped import SortedIds
from optirag_core.data.schema import ITEMS
from optirag_core.errors import ConfigError

log = logging.getLogger(__name__)

SEPARATORS = ("|", ";", ",")
"""Between the values of one text, such as MovieLens' "Action|Comedy"."""

MIN_SHARED = 0.5
"""Share of an attribute's entries whose value another item has, too: below it, as with descriptions, links and serial
numbers, a value says little more than the item itself."""

MIN_GAIN = 4.0
"""Splitting a column's texts must give this many times the entries per distinct value. "Austen, Jane" gives below 3."""


@dataclass(frozen=True)
class Values:
    """The values of one attribute, as numbers from 0 to V - 1, in an item's list each once."""

    first: np.ndarray  # [I + 1] where an item's values begin in `value`
    value: np.ndarray  # [L] int64

    @property
    def num_values(self) -> int:
        """V"""
        return int(self.value.max(initial=-1)) + 1

    def of(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every value of every asked item.

        Args:
            items: [n], -1 for an unknown one.

        Returns:
            which, the place of the asked item; value. Both [E], ordered by place.
        """
        start = self.first[items]  # of item -1 it is the end of all values
        length = np.where(items < 0, 0, self.first[items + 1] - start)
        which = np.repeat(np.arange(len(items)), length)
        within = np.arange(len(which)) - np.repeat(np.cumsum(length) - length, length)
        return which, self.value[start[which] + within]


def chosen_attributes(items: pa.Table) -> tuple[str, ...]:
    """Columns of text or lists of it: two values or more, half of the entries shared by items.

    Numbers are left out unless they are named: on data with times one like a review count says what came later.

    Args:
        items: `ITEMS` and further columns.
    """
    chosen = [
        name
        for name in items.column_names
        if name not in ITEMS.names and _is_text(items.schema.field(name).type) and _is_shared(items[name])
    ]
    log.info("evidence.attributes: %s", ", ".join(chosen) or "none: no column of items has values that items share")
    return tuple(chosen)


def values_of(items: pa.Table, name: str, item_ids: SortedIds) -> Values:
    """The values of a column, by the rows of `item_ids`.

    Raises:
        ConfigError: as for `item_values`.
    """
    rows, texts = item_values(items, name)
    item, value = item_ids.rows(items["item_id"])[rows], texts.dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.lexsort((value, item))
    return Values(np.searchsorted(item[order], np.arange(len(item_ids) + 1)), value[order])


def item_values(items: pa.Table, name: str) -> tuple[np.ndarray, pa.Array]:
    """(item row, value) of each value of a column: of a list each element, of a text with separators each part.

    Blank values are none. A text column is split at the first of `SEPARATORS` that makes values common (`MIN_GAIN`): at
    the comma of "Action, Comedy", not at that of "Austen, Jane".

    Returns:
        rows [L] int64 and values [L] large_string, an item's values distinct.

    Raises:
        ConfigError: there is no such column, or it holds neither text nor whole numbers.
    """
    if name not in items.column_names or name in ITEMS.names:
        further = [column for column in items.column_names if column not in ITEMS.names]
        raise ConfigError(
            f"evidence.attributes: items have no column {name!r}; there is {', '.join(further) or 'none'}"
        )
    column = items[name].combine_chunks()
    if not _is_countable(column.type):
        raise ConfigError(
            f"evidence.attributes: {name!r} is {column.type}, expected text, whole numbers or lists of them"
        )
    rows = pa.array(np.arange(len(column)))
    if _is_list(column.type):
        rows, column = rows.take(pc.list_parent_indices(column)), pc.list_flatten(column)
    values = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    rows, values = _without_blanks(rows, values)
    if not pa.types.is_integer(column.type):
        rows, values = _split(rows, values)
    distinct = pa.table({"row": rows, "value": values}).group_by(["row", "value"], use_threads=False).aggregate([])
    return distinct["row"].to_numpy(), distinct["value"].combine_chunks()


def _split(rows: pa.Array, texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    per_value = len(texts) / max(1, pc.count_distinct(texts).as_py())
    for separator in SEPARATORS:
        lists = pc.split_pattern(texts, separator)
        within, parts = _without_blanks(pc.list_parent_indices(lists), pc.utf8_trim_whitespace(pc.list_flatten(lists)))
        if len(parts) >= MIN_GAIN * per_value * pc.count_distinct(parts).as_py():
            return rows.take(within), parts
    return rows, texts


def _without_blanks(rows: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    kept = pc.fill_null(pc.not_equal(values, ""), False)
    return rows.filter(kept), values.filter(kept)


def _is_shared(column: pa.ChunkedArray) -> bool:
    rows, values = item_values(pa.table({"it": column}), "it")
    entries = pc.value_counts(values).field("counts").to_numpy()
    return len(entries) > 1 and entries[entries > 1].sum() >= MIN_SHARED * len(rows)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_countable(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind.value_type if _is_list(kind) else kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if _is_list(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
