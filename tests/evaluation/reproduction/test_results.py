"""Figures of a table's rows: aligned pairs, AUC within users, the paper's numbers, who can be told apart."""

import numpy as np
import pytest

from optirag_core.config.data import DatasetSettings
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.evaluation.reproduction.paper import TABLES, column_of, printed
from optirag_core.evaluation.reproduction.results import Results, aligned, compared, within_users


def measurement(pairs, scores, labels=None):
    users, items = (np.array(each) for each in zip(*pairs, strict=True))
    labels = np.zeros(len(pairs), dtype=np.int8) if labels is None else np.array(labels, dtype=np.int8)
    answer = Answer(np.array(scores), np.full(len(pairs), 5, dtype=np.int16), 0.5)
    return Measurement(users, items, labels, {"full": answer}, {"pairs_per_s": 7.0})


def results(users, labels, paper=None):
    return Results({}, None, None, {}, {}, {}, np.array(users), np.array(labels), paper, 0)


def test_a_measurement_is_read_as_it_was_written(tmp_path):
    written = measurement([("a", "1"), ("b", "2")], [0.25, 0.75], [1, 0])
    written.save(tmp_path)

    read = Measurement.load(tmp_path)

    assert read.pairs == written.pairs and read.labels.tolist() == [1, 0] and read.facts == {"pairs_per_s": 7.0}
    assert read.answers["full"].scores.tolist() == [0.25, 0.75]
    assert read.answers["full"].exit_layers.tolist() == [5, 5] and read.answers["full"].flops_share == 0.5


def test_cells_are_compared_at_the_pairs_that_all_have():
    cells = {
        "one": measurement([("b", "2"), ("a", "1"), ("a", "9")], [0.2, 0.1, 0.9]),
        "two": measurement([("a", "1"), ("b", "2")], [0.3, 0.4]),
    }

    found = aligned(cells)

    assert found["one"].pairs == found["two"].pairs == [("a", "1"), ("b", "2")]
    assert found["one"].answers["full"].scores.tolist() == [0.1, 0.2]


def test_auc_within_users_by_hand():
    """User a: 2 of 2 orders right, 3 pairs; user b: a tie, 2 pairs; c has one class: (3 * 1 + 2 * 1/2) / 5."""
    users, labels = ["a", "a", "a", "b", "b", "c"], [1, 0, 0, 1, 0, 1]
    scores = np.array([0.9, 0.2, 0.3, 0.5, 0.5, 0.1])

    assert within_users(scores, results(users, labels)).value == pytest.approx(4 / 5)
    assert within_users(np.stack([scores, -scores + 1.0]), results(users, labels)).value == pytest.approx(
        (4 / 5 + (2 * 0.5) / 5) / 2
    )
    assert within_users(scores[5:], results(["c"], [1])).value is None


def test_a_row_is_beside_what_the_paper_prints():
    told = printed("table2", column_of(DatasetSettings(source="bookcrossing", path="x")))

    assert told["OptiRAG-Rec"] == (pytest.approx(0.8211), 0.5269) and told["GRU4Rec"].other == 2.1302
    assert printed("table5", "Yelp")["FM-retriever"] == (pytest.approx(0.7401), 0.5484)
    assert printed("table2", column_of(DatasetSettings())) == {} == printed("worth", "Yelp")
    assert {len(row) for rows in TABLES.values() for row in rows.values()} == {10}


def test_what_cannot_be_told_from_the_reference_is_noise_and_what_can_is_not():
    chance = np.random.default_rng(0)
    users, labels = np.repeat(np.arange(300), 2), chance.integers(0, 2, 600)
    good = np.clip(0.5 + 0.3 * (labels - 0.5) + 0.2 * chance.normal(size=600), 0, 1)
    scores = {"good": good, "same": np.clip(good + 1e-4 * chance.normal(size=600), 0, 1), "bad": chance.random(600)}

    table = compared("table2", "Models", "", scores, results(users, labels, "BookCrossing"), reference="good")

    noise = {row: figures[0].is_noise for row, figures in table.rows}
    assert noise == {"good": False, "same": True, "bad": False}
    assert all(figures[0].low < figures[0].value < figures[0].high for _, figures in table.rows)
