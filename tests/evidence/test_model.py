"""The regression on evidence, by hand and on a planted world."""

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.evidence import fitting
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.fitting import fit_model
from optirag_core.evidence.model import EvidenceModel, PairEvidence

from .test_evidence import BOOKS, READ, asked, table_of

MODEL = EvidenceModel(*(np.array(of, np.float32) for of in ([1, 2], [2, 4], [0.5, -1])), bias=0.25)


def test_by_hand():
    standardised = MODEL.standardise(np.array([[3.0, 2.0], [1.0, 6.0]]))
    assert standardised.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert MODEL.logit(standardised).tolist() == [0.75, -0.75]
    assert MODEL.score(standardised) == pytest.approx([1 / (1 + np.exp(-0.75)), 1 / (1 + np.exp(0.75))])


def test_survives_a_file(tmp_path):
    MODEL.save(tmp_path)
    again = EvidenceModel.open(tmp_path)
    assert [again.mean.tolist(), again.scale.tolist(), again.weights.tolist(), again.bias] == [
        [1, 2], [2, 4], [0.5, -1], 0.25,
    ]  # fmt: skip


def readers(seed=0):
    """40 readers of 12 books each: a book is liked where its author is one that the reader likes."""
    chance = np.random.default_rng(seed)
    items = pa.table({"item_id": [f"i{n}" for n in range(60)], "title": ["T"] * 60, "author": list("abcdef") * 10})
    taste = chance.integers(0, 2, (40, 6))
    rows = [
        (f"u{user}", f"i{item}", 9 if taste[user, item % 6] else 2, "train", day)
        for user in range(40)
        for day, item in enumerate(chance.permutation(60)[:12])
    ]
    return rows, items, taste


@pytest.mark.parametrize("timed", [False, True])
def test_a_planted_taste_in_authors_is_found(timed, monkeypatch):
    rows, items, taste = readers()
    table = table_of(rows, timed=timed)
    evidence = Evidence.of(table, items, ["author"])
    monkeypatch.setattr(fitting, "MAX_ROWS", 400)  # of 480
    pairs = PairEvidence(evidence, fit_model(evidence, table))
    read = {row[:2] for row in rows}
    unread = [(user, item) for user in range(40) for item in range(60) if (f"u{user}", f"i{item}") not in read]
    scores = pairs.model.score(
        pairs.standardised(asked(*((f"u{user}", f"i{item}", None, None) for user, item in unread)))
    )
    liked = np.array([taste[user, item % 6] for user, item in unread], bool)
    right = (scores[liked][:, None] > scores[~liked]).mean()  # the AUC
    assert right > 0.85


def test_standardised_features_of_the_fitted_rows():
    rows, items, _ = readers()
    table = table_of(rows, timed=False)
    evidence = Evidence.of(table, items, ["author"])
    model = fit_model(evidence, table)
    found = model.standardise(evidence.features(fitting.as_asked(table, timed=False)))
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert found.std(axis=0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("rows", [[], READ[:1], [row for row in READ if row[2] > 5]])
def test_without_both_classes_it_is_the_share(rows):
    table = table_of([(*row[:3], "train", row[4]) for row in rows], timed=False)
    evidence = Evidence.of(table, BOOKS, ["author"])
    pairs = PairEvidence(evidence, fit_model(evidence, table))
    share = (len(rows) + 1) / (len(rows) + 2)
    assert pairs.model.score(pairs.standardised(asked(("a", "w", None, None)))) == pytest.approx([share])
