"""The predictors beside which the model is shown, by name, and the one way to let them predict.

A predictor is any function (what is known, pairs) -> scores; another entry in `PREDICTORS` is another floor in the
summary and in the report. All see every interaction outside of the test split, the items, and nothing else. A prompt
sees no more than that, and less on data with times: nothing of anybody at or after its request's moment; a predictor
that reads times keeps to it, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.schema import INTERACTIONS, PAIRS, require_columns
from optirag_core.errors import DataError
from optirag_core.evaluation.floors import (
    global_mean,
    item_mean,
    logistic_regression,
    strong_regression,
    user_mean,
)
from optirag_core.evaluation.known import Known

Predictor = Callable[[Known, pa.Table], np.ndarray]
"""(what is known, `PAIRS` [n]) -> [n] p(yes) in [0, 1]."""

PREDICTORS: Mapping[str, Predictor] = {
    "global mean": global_mean,
    "user mean": user_mean,
    "item mean": item_mean,
    "logistic regression": logistic_regression,
    "strong regression": strong_regression,
}

PAIR_KEY = pa.schema([INTERACTIONS.field("user_id"), INTERACTIONS.field("item_id")])
"""What names a pair."""


def predictions(
    known: Known, pairs: pa.Table, predictors: Mapping[str, Predictor] = PREDICTORS
) -> dict[str, np.ndarray]:
    """Score pairs with every predictor.

    Args:
        pairs: `PAIRS` with the moments of their requests; further columns, labels among them, reach no predictor.

    Returns:
        Name -> [n] scores.

    Raises:
        DataError: a table is empty or not as described; `known` leaks: it has test rows, or a pair that is to be
            scored; or a predictor returns anything but [n] numbers in [0, 1].
    """
    interactions = require_columns(known.interactions, INTERACTIONS, "known interactions")
    pairs = require_columns(pairs, PAIRS, "pairs").select(PAIRS.names)
    if not len(pairs):
        raise DataError("there are no pairs to score")
    _require_known(interactions)
    _require_unseen(interactions, pairs)
    known = replace(known, interactions=interactions)
    return {name: _checked(name, predict(known, pairs), len(pairs)) for name, predict in predictors.items()}


def _require_known(known: pa.Table) -> None:
    num_test = pc.sum(pc.equal(known["split"], "test")).as_py() or 0
    if num_test:
        raise DataError(f"known interactions hold {num_test:,} rows of the test split: a leak; pass the other splits")
    if not len(known):
        raise DataError("there are no known interactions: predictors need the rows outside of the test split")
    if not np.isin(known["label"].to_numpy(), (0, 1)).all():
        raise DataError("known interactions: a label is neither 0 nor 1")


def _require_unseen(known: pa.Table, pairs: pa.Table) -> None:
    leaked = pairs.select(PAIR_KEY.names).join(known.select(PAIR_KEY.names), PAIR_KEY.names, join_type="left semi")
    if len(leaked):
        user, item = (leaked[name][0] for name in PAIR_KEY.names)
        raise DataError(
            f"{len(leaked):,} scored pairs are among the known interactions, a leak; one is user {user} and item {item}"
        )


def _checked(name: str, scores: np.ndarray, num_pairs: int) -> np.ndarray:
    if scores.shape != (num_pairs,):
        raise DataError(
            f"predictor {name!r} returned {scores.shape} scores, expected one for each of {num_pairs:,} pairs"
        )
    wrong = ~((scores >= 0.0) & (scores <= 1.0))
    if wrong.any():
        raise DataError(f"predictor {name!r} returned {scores[wrong][0]}, expected numbers in [0, 1]")
    return scores
