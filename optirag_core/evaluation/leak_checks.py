"""The leak rules of a data set and of what was learned from it, as checks that count.

Each takes plain tables, so that a leak can be planted in them. None raises: what is wrong is counted, and named once.

Shapes: N interactions, U users, I items, n pairs, D width of vectors.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import PAIRS, SPLITS
from optirag_core.evaluation.earlier import ALWAYS, Earlier, before_of
from optirag_core.evidence.evidence import Evidence

MAX_ROUNDING = 1e-4
"""Of a vector of length 1 in float32, whose sum was taken in another order."""


@dataclass(frozen=True)
class Check:
    """One rule, and how it was kept."""

    name: str  # the rule
    checked: int
    violations: int
    example: str | None  # one violation in words


def checked(name: str, table: pa.Table, wrong: np.ndarray) -> Check:
    """Count rows.

    Args:
        table: [n] what was checked; an example tells all columns.
        wrong: [n] bool.
    """
    rows = np.flatnonzero(wrong)
    first = table.slice(rows[0], 1).to_pylist()[0] if len(rows) else {}
    example = ", ".join(f"{column} {value}" for column, value in first.items())
    return Check(name, len(table), len(rows), example or None)


def are_among(pairs: pa.Table, others: pa.Table) -> np.ndarray:
    """[n] bool, whether each (user_id, item_id) is one of the others."""
    both = pa.concat_tables([each.select(["user_id", "item_id"]) for each in (pairs, others)])
    user, item = (both[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in both.column_names)
    keys = user.astype(np.int64) * (item.max(initial=0) + 1) + item
    return np.isin(keys[: len(pairs)], keys[len(pairs) :])


def of_splits(interactions: pa.Table, *splits: str) -> pa.Table:
    """The interactions of some splits."""
    return interactions.filter(pc.is_in(interactions["split"], pa.array(splits)))


def check_splits(interactions: pa.Table, method: str) -> list[Check]:
    """Every pair is in one split, and nobody's later splits come before earlier ones.

    Args:
        interactions: `INTERACTIONS`, rows in any order.
        method: of the split, as the data set's info names it.
    """
    table = interactions.sort_by([("user_id", "ascending"), ("position", "ascending")]).combine_chunks()
    user = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    item = table["item_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    rank = pc.index_in(table["split"], pa.array(SPLITS)).to_numpy()
    _, place, times = np.unique(user * (item.max(initial=0) + 1) + item, return_inverse=True, return_counts=True)
    named = table.select(["user_id", "item_id", "split"])
    running = user * len(SPLITS) + rank
    checks = [
        checked("a pair is in one split, once", named, times[place] > 1),
        checked(f"of each user the order is {' < '.join(SPLITS)}", named, running < np.maximum.accumulate(running)),
    ]
    if method == "leave_last_out":
        held_out = np.bincount(running, minlength=len(SPLITS) * (user.max(initial=0) + 1))[running]
        many = (held_out > 1) & (rank >= SPLITS.index("validation"))
        checks.append(checked("one validation and one test row of each user at most", named, many))
    if not table["event_time"].null_count:
        time = table["event_time"].cast(pa.int64()).to_numpy()
        checks.append(_check_times(named, user, rank, time, cut=method == "time_cut"))
    return checks


def _check_times(named: pa.Table, user: np.ndarray, rank: np.ndarray, time: np.ndarray, *, cut: bool) -> Check:
    """[N] rows by user and position."""
    if not cut:
        earlier = np.r_[False, (np.diff(user) == 0) & (np.diff(time) < 0)][: len(time)]
        return checked("a user's times do not decrease", named, earlier)
    of_split = np.where(rank < SPLITS.index("validation"), 0, rank - 1)  # train and tune, validation, test
    first = [time[of_split >= later].min(initial=ALWAYS) for later in (1, 2, 3)]
    return checked("validation and test are behind their cuts in time", named, time >= np.array(first)[of_split])


def check_graph(edges: pa.Table, interactions: pa.Table) -> Check:
    """Every edge is a training interaction, and so none is a tune, validation or test pair.

    Args:
        edges: user_id, item_id.
        interactions: `INTERACTIONS`.
    """
    wrong = ~are_among(edges, of_splits(interactions, "train"))
    return checked("an edge of the graph is a training interaction", edges.select(["user_id", "item_id"]), wrong)


def check_nodes(user_ids: pa.Array, item_ids: pa.Array, interactions: pa.Table) -> list[Check]:
    """Who and what has a vector has training interactions."""
    train, checks = of_splits(interactions, "train"), []
    for column, ids in (("user_id", user_ids), ("item_id", item_ids)):
        ids = ids.cast(pa.string())
        wrong = ~np.asarray(pc.is_in(ids, value_set=pc.unique(train[column])))
        name = f"every {column[:4]} with a vector has training interactions"
        checks.append(checked(name, pa.table({column: ids}), wrong))
    return checks


def check_vectors(
    user_ids: Sequence[str], vectors: np.ndarray, fold_in: Callable[[Collection[str]], np.ndarray | None],
    interactions: pa.Table,
) -> Check:  # fmt: skip
    """A user's vector is that of the training interactions, and of nothing else.

    The GCN's users are sums over their items (`retrieval.gcn.item_fold_in`): one more edge is seen in the vector.

    Args:
        vectors: [U, D], of length 1.
        fold_in: items -> [D] vector of a user with exactly these; None where they say nothing.
    """
    train = of_splits(interactions, "train").group_by("user_id").aggregate([("item_id", "list")])
    items_of = dict(zip(train["user_id"].to_pylist(), train["item_id_list"].to_pylist(), strict=True))
    wrong = np.empty(len(vectors), bool)
    for row, user_id in enumerate(user_ids):
        made = fold_in(items_of.get(user_id, ()))
        wrong[row] = made is None or np.abs(vectors[row] - made).max() > MAX_ROUNDING
    name = "a user's vector is made of the training interactions and of no others"
    return checked(name, pa.table({"user_id": pa.array(user_ids, pa.string())}), wrong)


def check_evidence(evidence: Evidence, interactions: pa.Table) -> list[Check]:
    """Over all time evidence counts each user's and each item's interactions outside of the test split, no others."""
    known, checks = of_splits(interactions, *SPLITS[:3]), []
    for column, place in (("user_id", 1), ("item_id", 2)):
        ids = pc.unique(interactions[column])
        empty = {field.name: pa.nulls(len(ids), field.type) for field in PAIRS}
        found = evidence.sums(pa.table({**empty, column: ids}, schema=PAIRS))[place]  # [3, n]
        row = pc.index_in(known[column], value_set=ids).to_numpy()
        expected = [np.bincount(row, weights, len(ids)) for weights in (None, known["label"], known["rating"])]
        wrong = np.asarray(~np.isclose(found, expected, atol=1e-3).all(axis=0))
        name = f"evidence of every {column[:4]} counts the interactions outside of the test split"
        checks.append(checked(name, pa.table({column: ids}), wrong))
    return checks


def check_evidence_moments(evidence: Evidence, pairs: pa.Table, interactions: pa.Table) -> list[Check]:
    """Evidence of an asked pair counts what was known before it was asked: of its user, and of its item.

    Args:
        pairs: `PAIRS` [n] with the moments of their requests.
    """
    known = of_splits(interactions, *SPLITS[:3])
    sums, checks = evidence.sums(pairs), []
    for column, place in (("user_id", 1), ("item_id", 2)):
        expected, _ = Earlier(known, column).sums(pairs[column], before_of(pairs, evidence.timed, own=place == 1))
        name = f"evidence of an asked pair's {column[:4]} counts what came before the request"
        checks.append(checked(name, pairs.select(["user_id", "item_id"]), sums[place][0] != expected))
    return checks


def check_roles(users_of: Mapping[str, Collection[str]]) -> Check:
    """Nobody teaches two of the LLM, the exit heads and the exit policy."""
    users = [user_id for ids in users_of.values() for user_id in set(ids)]
    distinct, counts = np.unique(np.array(users, dtype=object), return_counts=True)
    name = f"a user teaches one of {', '.join(users_of)}"
    return checked(name, pa.table({"user_id": pa.array(distinct, pa.string())}), counts > 1)


def check_learned(learned: pa.Table, interactions: pa.Table) -> Check:
    """What heads and policy were made with is of the splits tune and validation.

    Args:
        learned: user_id, item_id.
    """
    wrong = ~are_among(learned, of_splits(interactions, "tune", "validation"))
    return checked("heads and policy learn from tune and validation", learned.select(["user_id", "item_id"]), wrong)
