"""Columns of items and users as categorical fields: numbers for values, and ids for those that training meets often.

Shapes: N interactions, I items, U users.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.evidence.attributes import item_values
from optirag_core.prompting.template import PromptTemplate

MAX_CATEGORIES = 50
"""A number with more values than this in training is binned: an age, but not a month."""

NUM_BINS = 20
"""Of nearly equal numbers of training pairs."""

NONE = -1
"""Code of a value that is not there."""


def shown_profile(template: PromptTemplate, users: pa.Table) -> list[str]:
    """The columns of users that prompts show: those whose value changes the profile's text.

    Args:
        users: `USERS` and profile columns.
    """
    names = [name for name in users.column_names if name != "user_id"]
    blank = dict.fromkeys([*users.column_names, "mean_stars"])  # a mean is the prompt's own, not a column

    def text(row: dict[str, object]) -> str:
        return template.profile("target_user", {**row, "mean_stars": None})

    values = {name: users[name].drop_null().slice(0, 1).to_pylist() for name in names}
    return [name for name in names if values[name] and text(blank | {name: values[name][0]}) != text(blank)]


def frequent_ids(codes: np.ndarray, train: np.ndarray, min_count: int) -> np.ndarray:
    """Ids from 1 for the codes that training meets often enough, 0 for all others.

    Args:
        codes: [N] int64, `NONE` where there is no value.
        train: [N] bool.

    Returns:
        [N] int32.
    """
    counts = np.bincount(codes[train & (codes != NONE)], minlength=codes.max(initial=NONE) + 1)
    frequent = counts >= min_count
    ids = np.append(np.where(frequent, np.cumsum(frequent), 0), 0)  # the last one, which NONE reads, is unknown
    return ids[codes].astype(np.int32)


def attribute_codes(items: pa.Table, name: str, item_ids: pa.ChunkedArray) -> np.ndarray:
    """[N] int64 code of each item's value, of a list the first.

    Args:
        item_ids: [N].

    Raises:
        ConfigError: as for `evidence.attributes.item_values`.
    """
    rows, values = item_values(items, name)
    with_value, first = np.unique(rows, return_index=True)
    of_item = np.full(len(items), NONE)  # [I]
    of_item[with_value] = values.take(pa.array(first)).dictionary_encode().indices.to_numpy()
    return _looked_up(of_item, item_ids, items["item_id"])


def profile_codes(users: pa.Table, name: str, user_ids: pa.ChunkedArray, train: np.ndarray) -> np.ndarray:
    """[N] int64 code of each user's value: its own, or that of its bin where it is a number of many values.

    Args:
        user_ids: [N].
        train: [N] bool, the rows whose values make the bins.
    """
    column = users[name].combine_chunks()
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    encoded = column.dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, NONE)).astype(np.int64)  # [U]
    codes = _looked_up(codes, user_ids, users["user_id"])
    trained = codes[train & (codes != NONE)]
    if not _is_number(column.type) or len(np.unique(trained)) <= MAX_CATEGORIES:
        return codes
    values = encoded.dictionary.to_numpy(zero_copy_only=False)
    edges = np.unique(np.quantile(values[trained], np.arange(1, NUM_BINS) / NUM_BINS))
    bins = np.append(np.searchsorted(edges, values, side="right"), NONE)
    return bins[codes]


def _looked_up(codes: np.ndarray, wanted: pa.ChunkedArray, ids: pa.ChunkedArray) -> np.ndarray:
    """[N] the codes of these ids, `NONE` for one that the table does not have."""
    row = pc.fill_null(pc.index_in(wanted, value_set=ids.combine_chunks()), NONE)
    return np.append(codes, NONE)[row.to_numpy()]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
