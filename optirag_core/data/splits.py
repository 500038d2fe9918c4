"""Raw ratings -> labelled interactions in order, each in one split; and the requests of a split.

An interaction is *eligible* as a sample when its user has at least `min_history` past interactions: strictly earlier
where times exist (interactions at one timestamp are not each other's past), else at lower positions. Past interactions
only grow along a user's order, so the eligible ones are a suffix of it.

Shapes: N interactions.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.config.data import DatasetSettings, SplitSettings
from optirag_core.data.ordering import Sequences, num_earlier, ordered_sequences
from optirag_core.data.schema import INTERACTIONS, PAIRS, REQUESTS, SPLITS
from optirag_core.data.tune_targets import TRAIN_PER_TARGET, tune_targets
from optirag_core.errors import ConfigError, DataError

log = logging.getLogger(__name__)
MIN_TIME_CUT_USERS = 100
"""Fewer test users say nothing about a model. Where users come for some days and go, a cut by time leaves few: of
MovieLens' 671 users 10, whose AUC is their ten likings'."""

TRAIN, TUNE, VALIDATION, TEST, REMOVED = 0, 1, 2, 3, 4  # the first four in the order of SPLITS


@dataclass(frozen=True)
class SplitCounts:
    """How ratings were split, and what became of them: dropped, removed, or in one of the splits; these add up."""

    method: str  # never `auto`
    implicit_dropped: int
    duplicates_dropped: int
    after_cut_removed: int
    train: int
    tune: int
    validation: int
    test: int
    tune_wanted: int  # the targets that dataset.split.tune_share asks for

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for the user where tune falls short, else nothing."""
        if self.tune >= self.tune_wanted:
            return ()
        return (
            f"tune has {self.tune:,} of the {self.tune_wanted:,} targets that dataset.split.tune_share asks for: "
            f"a user gives one for each {TRAIN_PER_TARGET} training interactions, and at least 1",
        )


def split_interactions(ratings: pa.Table, settings: DatasetSettings, seed: int) -> tuple[pa.Table, SplitCounts]:
    """Order, deduplicate, label and split ratings.

    Within each user the order is train < tune < validation < test. With `time_cut`, interactions after a cut of users
    with fewer than `min_history` train interactions are removed: as train rows they would leak into the graph.

    Args:
        ratings: `schema.RATINGS`, [N]; with `schema.ARRIVAL` where there are events among them.
        settings: threshold, minimal history and split method.
        seed: of the order where no times exist, and of the choice of tune users.

    Returns:
        `schema.INTERACTIONS`, sorted by (user_id, position), and the counts of what was dropped and of each split.

    Raises:
        ConfigError: `time_cut` without times, or shares that leave nothing to train on.
        DataError: no ratings, or only some of them have a time.
    """
    _check_shares(settings.split)
    explicit = ratings.filter(pc.greater(ratings["rating"], 0)) if settings.explicit_only else ratings
    if explicit.num_rows == 0:
        raise DataError(f"none of {ratings.num_rows:,} ratings is left to split: check dataset.explicit_only")
    sequences = ordered_sequences(explicit, seed)
    settings = _with_method(settings, sequences)
    codes = _assign(sequences, settings)
    targets, num_wanted = tune_targets(codes == TRAIN, sequences, settings, seed)
    codes[targets] = TUNE
    counts = SplitCounts(
        method=settings.split.method,
        implicit_dropped=ratings.num_rows - explicit.num_rows,
        duplicates_dropped=explicit.num_rows - len(sequences.row),
        after_cut_removed=int((codes == REMOVED).sum()),
        **{name: int((codes == code).sum()) for code, name in enumerate(SPLITS)},
        tune_wanted=num_wanted,
    )
    return _interactions(explicit, sequences, codes, settings.like_threshold), counts


def history_lengths(interactions: pa.Table) -> Mapping[str, Mapping[str, int]]:
    """The number of requests by the number of earlier interactions: {"tune": {"3": 120, "4": 80, ...}, ...}.

    Earlier is what a prompt may show: the user's interactions strictly before the request where times exist, else those
    at lower positions. A prompt shows the last `prompt.max_history` of them. Keys are text, as in JSON, and increase.

    Args:
        interactions: `schema.INTERACTIONS`, sorted by (user_id, position).
    """
    user = _user_codes(interactions)
    num_past = interactions["position"].to_numpy()
    if interactions["event_time"].null_count == 0:
        num_past = num_earlier(user, interactions["event_time"].cast(pa.int64()).to_numpy(), num_past)
    return {split: _first_counted(user, num_past, interactions["split"], split) for split in SPLITS[1:]}


def requests_for(interactions: pa.Table, split: str) -> pa.Table:
    """One row per user with rows in `split`: `schema.REQUESTS` and `labels`, candidates in position order.

    `as_of` and `as_of_position` are the earliest of the user's candidates, so that no candidate is in another's past.
    """
    rows = interactions.filter(pc.equal(interactions["split"], split)).combine_chunks()
    starts = np.flatnonzero(np.diff(_user_codes(rows), prepend=-1))
    offsets = pa.array(np.append(starts, len(rows)).astype(np.int32))
    first = rows.take(starts)  # times do not decrease along positions: the first is the earliest
    items, labels = (pa.ListArray.from_arrays(offsets, rows[name].combine_chunks()) for name in ("item_id", "label"))
    columns = [first["user_id"], items, first["event_time"], first["position"], labels]
    return pa.table(columns, schema=REQUESTS.append(pa.field("labels", pa.list_(pa.int8()))))


def labelled_pairs(requests: pa.Table) -> pa.Table:
    """What `requests_for` made, one row per candidate: `schema.PAIRS` and `label`."""
    items = requests["item_ids"].combine_chunks()
    of = pc.list_parent_indices(items)
    origin = [requests[name].take(of) for name in ("as_of", "as_of_position")]
    columns = [requests["user_id"].take(of), pc.list_flatten(items), *origin]
    labels = pc.list_flatten(requests["labels"].combine_chunks())
    return pa.table([*columns, labels], schema=PAIRS.append(INTERACTIONS.field("label")))


def _check_shares(split: SplitSettings) -> None:
    held_out = split.validation_share + split.test_share
    if split.method != "leave_last_out" and held_out >= 1.0:
        raise ConfigError(f"dataset.split: validation_share + test_share is {held_out:g}, expected less than 1")


def _with_method(settings: DatasetSettings, sequences: Sequences) -> DatasetSettings:
    """The settings with `split.method: auto` decided."""
    if settings.split.method != "auto":
        return settings
    method = "last_share"
    if sequences.time is not None:
        tested = np.unique(sequences.user[_time_cut(sequences, settings) == TEST])
        if len(tested) >= MIN_TIME_CUT_USERS:
            method = "time_cut"
        else:
            log.info("dataset.split.method: last_share, as a cut by time would leave %d test users", len(tested))
    return settings.model_copy(update={"split": settings.split.model_copy(update={"method": method})})


def _assign(sequences: Sequences, settings: DatasetSettings) -> np.ndarray:
    """[N] codes of train, validation, test or removed."""
    eligible = sequences.num_past >= settings.min_history
    if settings.split.method == "time_cut":
        return _time_cut(sequences, settings)
    num_validation, num_test = _held_out(sequences, settings)
    from_end = sequences.length - 1 - sequences.position  # [N], 0 for a user's last interaction
    codes = np.full(len(from_end), TRAIN, np.int8)
    codes[eligible & (from_end < num_validation + num_test)] = VALIDATION
    codes[eligible & (from_end < num_test)] = TEST
    return codes


def _held_out(sequences: Sequences, settings: DatasetSettings) -> tuple[np.ndarray | int, np.ndarray | int]:
    """How many of the last interactions are validation and test, [N] each, or one number for all."""
    if settings.split.method == "leave_last_out":
        return 1, 1
    contributes = sequences.length >= settings.min_history + 2
    shares = (settings.split.validation_share, settings.split.test_share)
    counts = [np.maximum(1, np.floor(share * sequences.length + 0.5)) * (share > 0) * contributes for share in shares]
    return counts[0], counts[1]


def _time_cut(sequences: Sequences, settings: DatasetSettings) -> np.ndarray:
    if sequences.time is None:
        raise ConfigError("dataset.split.method: time_cut needs times, this data set has none: use last_share")
    split: SplitSettings = settings.split
    codes = np.full(len(sequences.time), TRAIN, np.int8)
    for code, share in ((VALIDATION, split.validation_share + split.test_share), (TEST, split.test_share)):
        codes[sequences.time >= _cut(sequences.time, share)] = code
    num_train = np.bincount(sequences.user, weights=codes == TRAIN)[sequences.user]  # [N], of the row's user
    codes[(codes != TRAIN) & (num_train < settings.min_history)] = REMOVED
    return codes


def _cut(time: np.ndarray, share: float) -> float:
    """The time from which on the last `share` of all interactions lies; one timestamp is never divided."""
    num_after = round(share * len(time))
    return np.sort(time)[len(time) - num_after] if num_after else np.inf


def _user_codes(interactions: pa.Table) -> np.ndarray:
    """[N], one number per user, ascending where the table is sorted by user."""
    return interactions["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()


def _first_counted(user: np.ndarray, num_past: np.ndarray, splits: pa.ChunkedArray, split: str) -> Mapping[str, int]:
    """The number of users by `num_past` of their first interaction in `split`: the moment of their request."""
    rows = np.flatnonzero(pc.equal(splits, split).to_numpy())
    first = rows[np.flatnonzero(np.diff(user[rows], prepend=-1))]
    lengths, counts = np.unique(num_past[first], return_counts=True)
    return {str(length): int(count) for length, count in zip(lengths, counts, strict=True)}


def _interactions(ratings: pa.Table, sequences: Sequences, codes: np.ndarray, like_threshold: float) -> pa.Table:
    kept = np.flatnonzero(codes != REMOVED)
    rows = ratings.take(sequences.row[kept])
    columns = {
        "user_id": rows["user_id"],
        "item_id": rows["item_id"],
        "rating": rows["rating"],
        "label": pc.greater(rows["rating"], like_threshold).cast(pa.int8()),
        "event_time": rows["event_time"],
        "position": sequences.position[kept].astype(np.int32),
        "split": pa.array(SPLITS).take(pa.array(codes[kept])),
    }
    return pa.table(columns, schema=INTERACTIONS)
