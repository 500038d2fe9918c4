"""A small planted world: users and items with tastes, a model that sees part of them."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.data.schema import INTERACTIONS, SCORES
from optirag_core.engine.certificate import Calibration, Candidate
from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.labels import LabelledScores
from optirag_core.evaluation.predictors import predictions
from optirag_core.evaluation.scored_run import ScoredRun
from optirag_core.evaluation.summary import summarize
from optirag_core.evaluation.worth import worth

NUM_USERS, NUM_ITEMS, NUM_PER_USER = 120, 40, 12
TEST_POSITION = 100_000
RUN = ScoredRun(
    scored=240, rejects={"unknown_item": 7, "prompt_too_long": 2}, scorer_seconds=12.0,
    pairs_per_scorer_second=20.0, dropped_entries=31, dropped_users=4,
)  # fmt: skip


def interactions(rows, split="train"):
    """(user, item, label) rows -> INTERACTIONS of one split; test rows come after all others."""
    first = TEST_POSITION if split == "test" else 0
    return pa.Table.from_pylist(
        [
            {"user_id": user, "item_id": item, "rating": 5.0 * label, "label": label, "position": first + i,
             "split": split}
            for i, (user, item, label) in enumerate(rows)
        ],
        schema=INTERACTIONS,
    )  # fmt: skip


def known_of(rows):
    """(user, item, label) rows, or their table -> Known; items have a genre."""
    table = rows if isinstance(rows, pa.Table) else interactions(rows)
    ids = sorted({*table["item_id"].to_pylist()})
    genres = ["odd" if sum(map(ord, item_id)) % 2 else "even" for item_id in ids]
    return Known(table, pa.table({"item_id": ids, "title": ids, "genre": genres}), ["genre"])


def scores_of(rows):
    """(user, item, score, exit layer, cold start) rows -> SCORES."""
    return pa.Table.from_pylist(
        [
            {
                "user_id": user,
                "item_id": item,
                "score": score,
                "exit_layer": exit_layer,
                "num_similar_users": 0 if cold_start else 4,
                "cold_start": cold_start,
                "run_id": "run",
                "model_version": "model",
                "scored_at": datetime(2025, 1, 1, tzinfo=UTC),
            }
            for user, item, score, exit_layer, cold_start in rows
        ],
        schema=SCORES,
    )


def labelled(rows):
    """(user, item, label, score, exit layer, cold start) rows -> LabelledScores."""
    return LabelledScores.of(
        scores_of([(user, item, *rest) for user, item, _, *rest in rows]),
        interactions([row[:3] for row in rows], split="test"),
    )


@pytest.fixture(scope="session")
def world():
    """(known, scored): two of each user's twelve interactions are held out and scored."""
    rng = np.random.default_rng(7)
    user_bias, item_bias = rng.normal(size=NUM_USERS), rng.normal(size=NUM_ITEMS)
    known, scored = [], []
    for user in range(NUM_USERS):
        for rank, item in enumerate(rng.choice(NUM_ITEMS, size=NUM_PER_USER, replace=False)):
            logit = user_bias[user] + item_bias[item] + rng.normal()
            label = int(rng.random() < 1.0 / (1.0 + np.exp(-2.0 * logit)))
            pair = (f"u{user}", f"i{item}", label)
            if rank < NUM_PER_USER - 2:
                known.append(pair)
            else:
                score = float(1.0 / (1.0 + np.exp(-2.0 * logit)))
                scored.append((*pair, score, int(rng.choice([2, 4, 6])), user % 10 == 0))
    return known_of(known), labelled(scored)


@pytest.fixture(scope="session")
def summary(world):
    known, scored = world
    return summarize(scored, predictions(known, scored.pairs), RUN, exit_layers=(2, 4), num_layers=6, seed=0)


@pytest.fixture(scope="session")
def summary_with_worth(world, summary):
    """The LLM adds something to weak evidence, and the exits something to the last head's noise."""
    _, scored = world
    noise = np.random.default_rng(2).random((4, len(scored.labels)))
    weights = {0: 0.75, 2: 0.6, 4: 0.5, 6: 0.35}
    by_layer = {
        layer: (1.0 - share) * scored.scores + share * row
        for row, (layer, share) in zip(noise, weights.items(), strict=True)
    }
    llm = 0.3 * scored.scores + 0.7 * noise[3]
    floors = {"user mean": noise[0]}
    measured = worth(scored.labels, scored.users, llm=llm, by_layer=by_layer, floors=floors, run=scored.scores, seed=0)
    return replace(summary, worth=measured)


@pytest.fixture(scope="session")
def calibration():
    """Full depth, two policies that passed, one that did not, and one that was not tested."""
    figures = [  # threshold, FLOPs share, mean exit layer, excess loss, p-value, accepted
        (0.0, 1.0, 6.0, 0.0, None, True),
        (0.01, 0.7, 4.2, 0.0002, 0.001, True),
        (0.02, 0.45, 2.7, 0.0009, 0.04, True),
        (0.05, 0.3, 2.2, 0.0031, 0.62, False),
        (0.1, 0.2, 1.5, 0.0102, None, False),
    ]
    candidates = [
        Candidate(
            ExitPolicy("ratio" if threshold else "none", 3, threshold, evidence_confidence=0.97 if threshold else None),
            (2, 4), share, depth, excess, -0.2 * excess, p_value, accepted,
        )
        for threshold, share, depth, excess, p_value, accepted in figures
    ]  # fmt: skip
    return Calibration(
        epsilon=0.002, delta=0.1, num_users=1250, num_pairs=3100, chosen=2, upper_bound=0.0018, data="cd" * 32,
        candidates=tuple(candidates),
    )  # fmt: skip
