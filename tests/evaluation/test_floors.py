"""Floors against hand-computed means, and slow loops that really delete each row."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from optirag_core.config.data import DatasetSettings, SplitSettings
from optirag_core.data.loading import load_raw
from optirag_core.data.schema import PAIRS
from optirag_core.data.splits import labelled_pairs, requests_for, split_interactions
from optirag_core.evaluation.floors import (
    PRIOR_WEIGHT,
    global_mean,
    item_mean,
    logistic_regression,
    strong_regression,
    user_mean,
)
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.predictors import predictions
from tests.evidence.reference import slow_features

from .conftest import known_of
from .test_predictors import KNOWN, pairs_of, with_column


def test_three_users_four_items_by_hand():
    known, pairs = known_of(KNOWN), pairs_of([("a", "z"), ("b", "y"), ("c", "w"), ("new", "unheard")])
    assert global_mean(known, pairs).tolist() == [0.5] * 4
    # 3 more labels of 0.5: a (2 + 1.5) / (3 + 3), b (1 + 1.5) / (2 + 3), c (0 + 1.5) / (1 + 3), unknown 0.5
    assert user_mean(known, pairs) == pytest.approx([3.5 / 6, 0.5, 0.375, 0.5])
    # z and y 1.5 / (1 + 3), w (2 + 1.5) / (2 + 3), unknown 0.5
    assert item_mean(known, pairs) == pytest.approx([0.375, 0.375, 0.7, 0.5])


def mean(rows, column, value):
    labels = [row[2] for row in rows if row[column] == value]
    prior = sum(row[2] for row in rows) / len(rows)
    return (sum(labels) + PRIOR_WEIGHT * prior) / (len(labels) + PRIOR_WEIGHT)


def features(rows, pair):
    columns = []
    for column in (0, 1):
        share = mean(rows, column, pair[column])
        count = sum(row[column] == pair[column] for row in rows)
        columns += [np.log(share / (1 - share)), np.log1p(count)]
    return columns


def slow_regression(known, pairs):
    """The features of a known row come from the list without that row."""
    fitted = LogisticRegression().fit(
        [features(known[:i] + known[i + 1 :], row) for i, row in enumerate(known)], [row[2] for row in known]
    )
    return fitted.predict_proba([features(known, pair) for pair in pairs])[:, 1]


def test_equals_the_slow_loop(world):
    known = [(row["user_id"], row["item_id"], row["label"]) for row in world[0].interactions.slice(0, 300).to_pylist()]
    scored = [(row["user_id"], row["item_id"]) for row in world[1].pairs.slice(0, 60).to_pylist()]
    pairs = [*scored, ("new", "i1"), ("u1", "unheard")]
    fast = {floor: floor(known_of(known), pairs_of(pairs)) for floor in (user_mean, item_mean, logistic_regression)}
    assert fast[user_mean] == pytest.approx([mean(known, 0, pair[0]) for pair in pairs], abs=1e-9)
    assert fast[item_mean] == pytest.approx([mean(known, 1, pair[1]) for pair in pairs], abs=1e-9)
    assert fast[logistic_regression] == pytest.approx(slow_regression(known, pairs), abs=1e-9)


@pytest.mark.parametrize("labels", [(1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_without_both_classes_the_regression_is_the_global_mean(labels):
    known = known_of([("a", "w", labels[0]), ("a", "x", labels[1]), ("b", "w", labels[2])])
    assert logistic_regression(known, pairs_of([("b", "x")])) == pytest.approx([np.mean(labels)])


def test_the_strong_regression_is_fitted_on_what_each_row_could_know(world):
    known = replace(world[0], interactions=world[0].interactions.slice(0, 300))
    rows = known.interactions.to_pylist()
    genres = {row["item_id"]: [row["genre"]] for row in known.items.to_pylist()}
    asked = [*world[1].pairs.slice(0, 60).to_pylist(), *pairs_of([("new", "i1"), ("u1", "unheard")]).to_pylist()]
    moments = [{**row, "as_of": None, "as_of_position": row["position"]} for row in rows]
    fitted_on = np.array([slow_features(rows, [genres], row, False) for row in moments])
    pairs = np.array([slow_features(rows, [genres], pair, False) for pair in asked])
    scaler = StandardScaler().fit(fitted_on)
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(fitted_on), [row["label"] for row in rows])

    found = strong_regression(known, pa.Table.from_pylist(asked, schema=PAIRS))
    assert found == pytest.approx(model.predict_proba(scaler.transform(pairs))[:, 1], abs=1e-4)


def test_regressions_beat_the_means_on_a_world_of_both(summary):
    auc = {name: floor.auc for name, floor in summary.floors.items()}
    assert summary.best_floor == "strong regression"
    assert auc["logistic regression"] > max(auc["user mean"], auc["item mean"])


def test_shuffled_labels_and_stars_leave_no_auc(world):
    known, scored = world
    places = np.random.default_rng(0).permutation(len(known.interactions))
    rows = known.interactions
    for column in ("label", "rating"):
        rows = with_column(rows, column, rows[column].to_numpy()[places])
    found = strong_regression(replace(known, interactions=rows), scored.pairs)
    assert 0.4 < roc_auc_score(scored.labels, found) < 0.6  # 240 pairs: a standard error of 0.04


@pytest.mark.slow
def test_figures_on_bookcrossing(shared_data):
    """Measured apart from this code, on 4,000 of the test users: two means 0.7153, all evidence 0.7458."""
    settings = DatasetSettings(
        source="bookcrossing", path="", like_threshold=7, explicit_only=True,
        split=SplitSettings(method="leave_last_out", tune_share=0.15),
    )  # fmt: skip
    raw = load_raw(settings, folder=shared_data / "bookcrossing")
    rows, _ = split_interactions(raw.ratings, settings, seed=0)
    known = Known(rows.filter(pc.not_equal(rows["split"], "test")), raw.items, ["author", "publisher"])
    test = labelled_pairs(requests_for(rows, "test"))
    floors = {"logistic regression": logistic_regression, "strong regression": strong_regression}
    found = {name: roc_auc_score(test["label"], scores) for name, scores in predictions(known, test, floors).items()}
    assert list(found.values()) == pytest.approx([0.7153, 0.7458], abs=3e-3)
