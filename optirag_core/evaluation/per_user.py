"""Two scoring runs user by user, for whoever asks who is hit by a change.

Shapes: n pairs of both runs, U users.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.evaluation.metrics import answer_losses
from optirag_core.evaluation.predictors import PAIR_KEY


def user_metrics(pairs: pa.Table, labels: pa.Table | None, top_k: int) -> pa.Table:
    """One row per user of both runs.

    Args:
        pairs: `comparison.joined_pairs` [n].
        labels: `PAIR_KEY` and `label`; None where there are none.

    Returns:
        [U] user_id, pairs, mean_drift, max_drift, exits_changed (pairs), mean_exit_before and _after, top_overlap
        (items in both lists; null with top_k pairs or fewer), labelled (pairs), and of these auc_before and _after
        (null with one class) and log_loss_before and _after (null without any).
    """
    drift = pc.abs(pc.subtract(pairs["score_after"].cast(pa.float64()), pairs["score"].cast(pa.float64())))
    moved = pc.not_equal(pairs["exit_layer"], pairs["exit_layer_after"]).cast(pa.int64())
    table = pairs.append_column("drift", drift).append_column("moved", moved)
    grouped = table.group_by("user_id", use_threads=False).aggregate(
        [("drift", "count"), ("drift", "mean"), ("drift", "max"), ("moved", "sum"), ("exit_layer", "mean"),
         ("exit_layer_after", "mean")]
    )  # fmt: skip
    names = ("pairs", "mean_drift", "max_drift", "exits_changed", "mean_exit_before", "mean_exit_after")
    sources = ("drift_count", "drift_mean", "drift_max", "moved_sum", "exit_layer_mean", "exit_layer_after_mean")
    rows = pa.table(
        {"user_id": grouped["user_id"], **{n: grouped[s] for n, s in zip(names, sources, strict=True)}}
    ).join(top_overlap(pairs, top_k).rename_columns(["user_id", "top_overlap"]), "user_id", join_type="left outer")
    return rows.join(_labelled(pairs, labels), "user_id", join_type="left outer").sort_by("user_id")


def top_overlap(pairs: pa.Table, top_k: int) -> pa.Table:
    """Items that are among a user's best in both runs; equal scores go by item id.

    Args:
        pairs: `comparison.joined_pairs` [n].

    Returns:
        [U] user_id and overlap int64, 0 to top_k; null of users with top_k pairs or fewer.
    """
    user = pairs["user_id"].combine_chunks().dictionary_encode()
    codes, size = user.indices.to_numpy(), len(user.dictionary)
    items = np.argsort(np.argsort(pairs["item_id"].to_numpy(), kind="stable"), kind="stable")  # [n] places of ids
    shown = np.ones(len(codes), dtype=bool)
    for column in ("score", "score_after"):
        order = np.lexsort((items, -pairs[column].to_numpy(), codes))
        rank = np.empty(len(codes), np.int64)
        starts = np.searchsorted(codes[order], np.arange(size))
        rank[order] = np.arange(len(codes)) - starts[codes[order]]
        shown &= rank < top_k
    counts, overlap = np.bincount(codes, minlength=size), np.bincount(codes[shown], minlength=size)
    return pa.table({"user_id": user.dictionary, "overlap": pa.array(overlap, pa.int64(), mask=counts <= top_k)})


def grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """AUC within each group: the share of its (liked, not liked) pairs in order, equal scores half.

    From the sum R of the liked pairs' ranks (Mann and Whitney): (R - l (l + 1) / 2) / (l (m - l)) of m pairs, l liked.

    Args:
        labels, scores: [n].
        groups: [n] numbers from 0.

    Returns:
        [groups], NaN where a class is missing.
    """
    order = np.lexsort((scores, groups))
    labels, scores, groups = labels[order].astype(np.float64), scores[order], groups[order]
    size = np.bincount(groups)
    rank = np.arange(len(groups)) - (np.cumsum(size) - size)[groups] + 1.0
    ties = np.cumsum((np.diff(scores, prepend=np.nan) != 0) | (np.diff(groups, prepend=-1) != 0)) - 1
    rank = (np.bincount(ties, rank) / np.bincount(ties))[ties]
    liked, of_liked = np.bincount(groups, labels), np.bincount(groups, labels * rank)
    with np.errstate(invalid="ignore"):
        return (of_liked - liked * (liked + 1.0) / 2.0) / (liked * (size - liked))


def _labelled(pairs: pa.Table, labels: pa.Table | None) -> pa.Table:
    known = pairs.slice(0, 0).append_column("label", pa.array([], pa.int8()))
    if labels is not None:
        known = pairs.join(labels, PAIR_KEY.names, join_type="inner").combine_chunks()
    user = known["user_id"].combine_chunks().dictionary_encode()
    answers, codes = known["label"].to_numpy(), user.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(user.dictionary))
    columns = {"user_id": user.dictionary, "labelled": pa.array(counts, pa.int64())}
    for name, column in (("before", "score"), ("after", "score_after")):
        scores = known[column].to_numpy()
        auc = grouped_auc(answers, scores, codes) if len(codes) else np.empty(0)
        losses = np.bincount(codes, answer_losses(answers, scores)) / counts if len(codes) else np.empty(0)
        columns |= {f"auc_{name}": pa.array(auc, from_pandas=True), f"log_loss_{name}": losses}
    return pa.table(columns)
