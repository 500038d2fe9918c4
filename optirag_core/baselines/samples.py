"""The data set as the CTR models read it: pairs of each split as ids, each with what the user has rated before it.

What counts of a user is what a prompt shows (`data.histories`): the interactions before the pair, or with times those
strictly before its moment. Ids come from training pairs alone; what is rarer there than `baselines.min_count` is 0.

Shapes: N interactions, n pairs of a split, F fields, L history entries, B pairs of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.columns import attribute_codes, frequent_ids, profile_codes
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.ordering import num_earlier
from optirag_core.data.schema import SPLITS
from optirag_core.errors import DataError
from optirag_core.inference.requests import test_requests

DISLIKED, LIKED = 1, 2
"""Answers of history entries."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one split; a row of any field is the same pair."""

    fields: Tensor  # [n, F] int32
    ends: Tensor  # [n] int64, where the pair's past ends in `Samples.past_items`
    lengths: Tensor  # [n] int64, how many entries of it are known, at most L
    labels: Tensor  # [n] float32

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Pairs":
        return Pairs(*(of.to(device) for of in (self.fields, self.ends, self.lengths, self.labels)))


@dataclass(frozen=True)
class Samples:
    """All pairs of a data set."""

    vocabularies: Vocabularies
    past_items: Tensor  # [N] int32 ids of the item field; 0 of test interactions, which are in nobody's past
    past_answers: Tensor  # [N] int8
    train: Pairs
    validation: Pairs
    test: Pairs
    test_table: pa.Table  # user_id, item_id, label of the test pairs

    def batch(self, pairs: Pairs, rows: Tensor) -> Batch:
        """What a model reads of some pairs.

        Args:
            pairs: of one of the splits.
            rows: [B] places among them.
        """
        lengths = pairs.lengths[rows]
        places = torch.arange(self.vocabularies.max_history, device=lengths.device)  # [L]
        known = places < lengths[:, None]  # [B, L]
        entries = torch.where(known, (pairs.ends[rows] - lengths)[:, None] + places, 0)
        items, answers = (of[entries].long() * known for of in (self.past_items, self.past_answers))
        return Batch(pairs.fields[rows].long(), items, answers, lengths)

    def to(self, device: torch.device) -> "Samples":
        """The same samples, with all tensors on a device."""
        names = ("past_items", "past_answers", "train", "validation", "test")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @classmethod
    def of(
        cls, dataset: Dataset, settings: Settings, *, attributes: Sequence[str], profile: Sequence[str]
    ) -> "Samples":
        """
        Args:
            attributes: columns of items that are fields, those that evidence counts.
            profile: columns of users that are fields, those that prompts show.

        Raises:
            DataError: no interaction can be trained on.
        """
        rows, known = dataset.interactions, _Known.of(dataset.interactions)
        splits = {name: pc.equal(rows["split"], name).to_numpy() for name in SPLITS}
        num_past, least = known.num_past, settings.baselines.min_history
        train = (num_past >= least) & (splits["train"] | splits["tune"])
        validation = (num_past >= settings.dataset.min_history) & splits["validation"]
        if not train.any():
            raise DataError(
                f"baselines: none of {len(rows):,} interactions is outside of validation and test and has {least} "
                "earlier ones of its user: lower baselines.min_history, or give more interactions"
            )
        fields = _fields(dataset, train, settings.baselines.min_count, attributes, profile)  # F times [N]
        labels = rows["label"].to_numpy()
        longest = settings.prompt.max_history

        def pairs(chosen: np.ndarray, moments: np.ndarray) -> Pairs:
            """Some interactions, each with what was known at the moment of another."""
            columns = np.column_stack([ids[chosen] for ids in fields])
            lengths = np.minimum(num_past[moments], longest)
            of = (columns, known.end[moments], lengths, labels[chosen].astype(np.float32))
            return Pairs(*map(torch.from_numpy, of))

        trained, validated = np.flatnonzero(train), np.flatnonzero(validation)
        tested = np.flatnonzero(splits["test"] & _asked(dataset, settings))
        return cls(
            vocabularies=Vocabularies(tuple(int(ids[trained].max()) + 1 for ids in fields), longest),
            past_items=torch.from_numpy(fields[1] * ~splits["test"]),
            past_answers=torch.from_numpy(np.where(labels == 1, LIKED, DISLIKED).astype(np.int8) * ~splits["test"]),
            train=pairs(trained, trained),
            validation=pairs(validated, validated),
            test=pairs(tested, _first_of_each(known.user[tested], tested)),  # a request's candidates have one moment
            test_table=rows.take(tested).select(["user_id", "item_id", "label"]),
        )


@dataclass(frozen=True)
class _Known:
    """What is known of a user at each interaction: the rows in front of `end`, as many as `num_past`."""

    user: np.ndarray  # [N] int64, ascending
    num_past: np.ndarray  # [N] int64
    end: np.ndarray  # [N] int64

    @classmethod
    def of(cls, rows: pa.Table) -> "_Known":
        """
        Args:
            rows: `INTERACTIONS`, sorted by user and position.
        """
        user = _codes(rows["user_id"])
        starts = _first_of_each(user, np.arange(len(user)))  # [N]
        num_past = np.arange(len(user)) - starts
        if not rows["event_time"].null_count:
            num_past = num_earlier(user, rows["event_time"].cast(pa.int64()).to_numpy(), num_past)
        return cls(user, num_past, starts + num_past)


def _fields(
    dataset: Dataset, train: np.ndarray, min_count: int, attributes: Sequence[str], profile: Sequence[str]
) -> list[np.ndarray]:
    """Ids of every interaction in each field, F times [N] int32."""
    user_ids, item_ids = dataset.interactions["user_id"], dataset.interactions["item_id"]
    codes = [_codes(user_ids), _codes(item_ids)]
    codes += [attribute_codes(dataset.items, name, item_ids) for name in attributes]
    codes += [profile_codes(dataset.users, name, user_ids, train) for name in profile]
    return [frequent_ids(of, train, min_count) for of in codes]


def _asked(dataset: Dataset, settings: Settings) -> np.ndarray:
    """[N] whether the user is among those whose test interactions the LLM is asked for."""
    asked = test_requests(dataset, settings.requests.max_users, settings.seed)["user_id"]
    return pc.is_in(dataset.interactions["user_id"], value_set=asked.combine_chunks()).to_numpy()


def _first_of_each(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n] the value of the first row of the same group.

    Args:
        groups: [n], equal ones together.
    """
    new = np.diff(groups, prepend=-1) != 0
    return values[np.maximum.accumulate(np.where(new, np.arange(len(groups)), 0))]


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """[N] int64, one number per distinct value, in the order in which they come."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
