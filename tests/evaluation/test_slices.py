"""Slices and what is counted for them, by hand."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from optirag_core.data.schema import INTERACTIONS
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.errors import DataError
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.evaluation.slices import Slice, Traits, slices_of

DAY = datetime(2020, 1, 1, tzinfo=UTC)


def interactions(rows, *, timed):
    """(user, item, split, day) rows, each user's in order."""
    seen, records = {}, []
    for user, item, split, day in rows:
        position = seen[user] = seen.get(user, -1) + 1
        time = DAY + timedelta(days=day) if timed else None
        records.append((user, item, 5.0, 1, time, position, split))
    columns = zip(*records, strict=True)
    return pa.table(dict(zip(INTERACTIONS.names, columns, strict=True)), schema=INTERACTIONS)


def traits(history, popularity=None, cold_start=None):
    zeros = np.zeros(len(history), int)
    return Traits(np.array(history), zeros if popularity is None else np.array(popularity),
                  zeros > 0 if cold_start is None else np.array(cold_start))  # fmt: skip


@pytest.mark.parametrize(("timed", "history"), [(False, [4, 4, 1, 15]), (True, [3, 3, 1, 15])])
def test_traits_by_hand(timed, history):
    """a has 2 train, a tune and a validation row before two test rows, the last one at their moment; of c 15 count."""
    rows = [
        ("a", "i1", "train", 1), ("a", "i2", "train", 2), ("a", "i3", "tune", 3), ("a", "i4", "validation", 9),
        ("a", "i5", "test", 9), ("a", "i6", "test", 12),
        ("b", "i2", "train", 1), ("b", "i5", "test", 20),
        *(("c", f"j{number}", "train", number) for number in range(15)), ("c", "i3", "validation", 30),
        ("c", "i2", "test", 30),
    ]  # fmt: skip
    table = interactions(rows, timed=timed)
    pairs = labelled_pairs(requests_for(table, "test"))
    assert pairs["item_id"].to_pylist() == ["i5", "i6", "i5", "i2"]
    cold = np.array([False, False, True, False])
    found = Traits.of(pairs, table, cold)
    assert found.history.tolist() == history
    assert found.popularity.tolist() == [0, 0, 0, 2]
    assert found.cold_start is cold


def test_slices_by_hand():
    """User a at 3 and 4 entries has one of two in order, all of b at 9 and more are liked."""
    labels, scores, users = [0, 1, 1, 0, 1, 1], [0.2, 0.8, 0.3, 0.5, 0.5, 0.9], ["a", "a", "a", "a", "b", "b"]
    found = slices_of(labels, scores, users, traits([3, 3, 4, 4, 9, 15], [0, 1, 4, 2, 5, 20]), seed=0)
    middle = -(math.log(0.8) + math.log(0.8) + math.log(0.3) + math.log(0.5)) / 4
    assert found[0] == Slice(
        "history length", 3, 4, 4, 0.5, 0.75, (0.75, 0.75), pytest.approx(middle)
    )  # of one user every draw is the same
    assert found[1] == Slice("history length", 9, 14, 1, 1.0, None, None, pytest.approx(-math.log(0.5)))
    assert [(each.name, each.values, each.pairs) for each in found] == [
        ("history length", "3-4", 4), ("history length", "9-14", 1), ("history length", "15+", 1),
        ("item popularity", "0", 1), ("item popularity", "1", 1), ("item popularity", "2-4", 2),
        ("item popularity", "5-19", 1), ("item popularity", "20+", 1), ("cold start", "no", 6),
    ]  # fmt: skip


def test_edges_of_bins():
    lengths = [0, 2, 3, 4, 5, 8, 9, 14, 15, 400]
    found = slices_of([0, 1] * 5, [0.5] * 10, range(10), traits(lengths, [0, 1, 2, 4, 5, 19, 20, 99, 1, 0]), seed=0)
    assert [each.values for each in found[:-1]] == ["0-2", "3-4", "5-8", "9-14", "15+", "0", "1", "2-4", "5-19", "20+"]
    assert [each.pairs for each in found] == [2] * 10 + [10]


def test_slices_of_a_trait_are_all_pairs():
    """Cold starts apart, and the mean of the slices' log losses is that of all."""
    rng = np.random.default_rng(0)
    labels, scores, cold = rng.integers(0, 2, 200), rng.random(200), rng.random(200) < 0.2
    found = slices_of(labels, scores, rng.integers(0, 40, 200), traits(rng.integers(3, 20, 200), None, cold), seed=0)
    for name in ("history length", "cold start"):
        mine = [each for each in found if each.name == name]
        assert sum(each.pairs for each in mine) == 200
        mean = np.average([each.log_loss for each in mine], weights=[each.pairs for each in mine])
        assert mean == pytest.approx(binary_metrics(labels, scores).log_loss)
    [no, yes] = found[-2:]
    assert (no.values, yes.values) == ("no", "yes")
    assert yes.auc == binary_metrics(labels[cold], scores[cold]).auc
    assert yes.auc_interval[0] < yes.auc < yes.auc_interval[1]


def test_every_pair_has_every_trait():
    with pytest.raises(DataError, match=r"history length: got \(1,\), expected one for each of 2 pairs"):
        slices_of([0, 1], [0.1, 0.2], ["a", "b"], traits([3]), seed=0)
    with pytest.raises(DataError, match=r"user: got \(1,\)"):
        slices_of([0, 1], [0.1, 0.2], ["a"], traits([3, 3]), seed=0)
