"""Scores of the test split's pairs, joined with what really happened."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import INTERACTIONS, PAIRS, SCORES, require_columns
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.errors import DataError
from optirag_core.evaluation.predictors import PAIR_KEY


@dataclass(frozen=True)
class LabelledScores:
    """n scored pairs, sorted by user and item; a row of any field is the same pair."""

    pairs: pa.Table  # PAIRS, [n], with the moments of the test split's requests
    labels: np.ndarray  # [n] int8, 1 liked, 0 not liked
    scores: np.ndarray  # [n] float32
    exit_layers: np.ndarray  # [n] int16
    cold_start: np.ndarray  # [n] bool

    @classmethod
    def of(cls, scores: pa.Table, interactions: pa.Table) -> Self:
        """Find every scored pair's label among the rows of the test split.

        Args:
            scores: `SCORES`.
            interactions: `INTERACTIONS`; rows of other splits give no label.

        Raises:
            DataError: there are no scores, or a pair without a label: the run asked for other pairs.
        """
        scores = require_columns(scores, SCORES, "scores")
        if not len(scores):
            raise DataError("there are no scored pairs: the run's rejects say why")
        interactions = require_columns(interactions, INTERACTIONS, "interactions")
        asked = labelled_pairs(requests_for(interactions, "test"))
        joined = scores.join(asked, PAIR_KEY.names, join_type="left outer")
        _require_labels(joined)
        joined = joined.sort_by([(name, "ascending") for name in PAIR_KEY.names])  # a join keeps no order
        columns = (joined[name].to_numpy() for name in ("label", "score", "exit_layer", "cold_start"))
        return cls(joined.select(PAIRS.names), *columns)

    @property
    def users(self) -> np.ndarray:
        """User of each pair, [n]."""
        return self.pairs["user_id"].to_numpy()


def _require_labels(joined: pa.Table) -> None:
    without = joined.filter(pc.is_null(joined["label"]))
    if len(without):
        user, item = (without[name][0] for name in PAIR_KEY.names)
        raise DataError(
            f"{len(without):,} of {len(joined):,} scored pairs have no label in the test split, one is user {user} and "
            f"item {item}; expected the test split's own pairs: run score without requests.path on this data set"
        )
