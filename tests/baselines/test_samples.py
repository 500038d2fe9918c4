"""Samples against the prompts' own histories and the LLM's own test pairs; what test interactions can change."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from optirag_core.baselines.samples import Samples
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories
from optirag_core.data.splits import labelled_pairs
from optirag_core.errors import DataError
from optirag_core.inference.requests import test_requests as requests_of_test
from tests.baselines.data import ATTRIBUTES, PROFILE, dataset_of, random_dataset, settings_of

SETTINGS = settings_of()


def samples_of(dataset, settings=SETTINGS, *, attributes=ATTRIBUTES, profile=PROFILE):
    return Samples.of(dataset, settings, attributes=attributes, profile=profile)


def rows_of(samples, split):
    """(fields, [(item, answer), ...], label) of every pair, without padding."""
    pairs = getattr(samples, split)
    batch = samples.batch(pairs, torch.arange(len(pairs)))
    found = []
    for row in range(len(pairs)):
        length = int(batch.history_lengths[row])
        entries = list(zip(batch.history_items[row].tolist(), batch.history_answers[row].tolist(), strict=True))
        assert entries[length:] == [(0, 0)] * (samples.vocabularies.max_history - length)
        found.append((batch.fields[row].tolist(), entries[:length], float(pairs.labels[row])))
    return found


def slow_rows(dataset, settings, split):
    """The same by a loop over interactions, with user and item ids in words and the prompts' own histories."""
    histories, timed = Histories.of(dataset.interactions), not dataset.interactions["event_time"].null_count
    found, first = [], {}
    for row in dataset.interactions.to_pylist():
        if row["split"] not in {"train": ("train", "tune"), "validation": ("validation",), "test": ("test",)}[split]:
            continue
        moment = first.setdefault(row["user_id"], row) if split == "test" else row
        past = histories.past(
            row["user_id"], as_of_position=moment["position"],
            as_of=int(moment["event_time"].timestamp() * 1e6) if timed else None, hide={row["item_id"]},
        )  # fmt: skip
        least = (settings.baselines if split == "train" else settings.dataset).min_history
        if len(histories.of_target(past, limit=10_000)) < least:
            continue
        shown = histories.of_target(past, limit=settings.prompt.max_history)
        liked = settings.dataset.like_threshold
        entries = [(entry.item_id, 2 if entry.rating > liked else 1) for entry in shown]
        found.append((row["user_id"], row["item_id"], entries, float(row["label"])))
    return found


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(("method", "min_history"), [("last_share", 0), ("leave_last_out", 3)])
def test_pairs_are_those_of_a_loop_with_the_prompts_own_histories(timed, method, min_history):
    settings = settings_of(
        dataset={"like_threshold": 3, "split": {"method": method, "tune_share": 0.2}},
        baselines={"min_history": min_history},
    )
    dataset = random_dataset(settings, timed=timed)
    samples = samples_of(dataset, settings)
    expected = {split: slow_rows(dataset, settings, split) for split in ("train", "validation", "test")}
    trained = {
        0: [user for user, *_ in expected["train"]],
        1: [item for _, item, *_ in expected["train"]],
    }
    known = [{value for value in set(values) if values.count(value) >= 2} for values in trained.values()]
    ids = ({None: 0}, {None: 0})  # as they are met: the same word has the same id everywhere, and no other word has it
    for split, slow in expected.items():
        found = rows_of(samples, split)
        assert len(found) == len(slow) > 0
        for (fields, entries, label), (user, item, slow_entries, slow_label) in zip(found, slow, strict=True):
            words = [(0, user, fields[0]), (1, item, fields[1])]
            words += [(1, name, number) for (name, _), (number, _) in zip(slow_entries, entries, strict=True)]
            for field, word, number in words:
                word = word if word in known[field] else None
                assert ids[field].setdefault(word, number) == number
            assert [answer for _, answer in entries] == [answer for _, answer in slow_entries]
            assert label == slow_label
    for of in ids:
        assert len(set(of.values())) == len(of)


@pytest.mark.parametrize("max_users", [None, 3])
def test_the_test_pairs_are_those_that_the_llm_is_measured_on(max_users):
    settings = settings_of(requests={"max_users": max_users}, seed=5)
    dataset = random_dataset(settings, timed=False)
    asked = labelled_pairs(requests_of_test(dataset, max_users, 5))
    table = samples_of(dataset, settings).test_table
    assert table.equals(asked.select(["user_id", "item_id", "label"]))
    assert max_users is None or len(pc.unique(table["user_id"])) == max_users


@pytest.mark.parametrize("timed", [False, True])
def test_nothing_of_the_test_split_but_its_pairs_is_read(timed):
    """Other labels, stars and later times there change no sample but the test pairs' own labels."""
    dataset = random_dataset(SETTINGS, timed=timed)
    rows = dataset.interactions
    tested = pc.equal(rows["split"], "test").to_numpy()
    labels = np.where(tested, 1 - rows["label"].to_numpy(), rows["label"].to_numpy())
    stars = np.where(tested, 6 - rows["rating"].to_numpy(), rows["rating"].to_numpy())
    changed = rows.set_column(3, rows.schema.field(3), pa.array(labels, pa.int8()))
    changed = changed.set_column(2, rows.schema.field(2), pa.array(stars, pa.float32()))
    before, after = samples_of(dataset), samples_of(Dataset(changed, dataset.users, dataset.items, {}))
    for split in ("train", "validation"):
        assert rows_of(before, split) == rows_of(after, split)
    for (*inputs, label), (*same, flipped) in zip(rows_of(before, "test"), rows_of(after, "test"), strict=True):
        assert inputs == same and label == 1 - flipped


def test_a_test_interaction_in_somebodys_past_shows_neither_item_nor_answer():
    """No split puts one there; a planted one is read as padding."""
    dataset = random_dataset(SETTINGS, timed=False)
    rows = dataset.interactions
    planted = pa.array(["test" if split == "tune" else split for split in rows["split"].to_pylist()])
    leaking = Dataset(rows.set_column(6, "split", planted), dataset.users, dataset.items, {})
    entries = [entry for _, past, _ in rows_of(samples_of(leaking), "validation") for entry in past]
    assert (0, 0) in entries and all(item == 0 for item, answer in entries if answer == 0)
    assert all(answer for _, past, _ in rows_of(samples_of(dataset), "validation") for _, answer in past)


def test_ids_by_hand():
    """u0 rates i0 ... i5: with one earlier rating needed, i1 ... i3 are trained on, i4 validates, i5 is the test."""
    settings = settings_of(
        dataset={"like_threshold": 3, "min_history": 1, "split": {"method": "leave_last_out", "tune_share": 0}},
        baselines={"min_count": 1, "min_history": 1}, prompt={"template": "books", "max_history": 2},
    )  # fmt: skip
    items = np.arange(6)
    dataset = dataset_of(np.zeros(6, int), items, np.array([5, 1, 4, 2, 5, 3]), settings, timed=True)
    samples = samples_of(dataset, settings, profile=())
    # two share a day, and neither is the other's past: i0, i1 | i2, i3 | i4, i5. The authors are the items' own.
    assert samples.vocabularies.fields == (2, 3, 3)
    past = [(0, 2), (0, 1)]  # nothing is trained on i0 and i1: they have no id
    assert rows_of(samples, "train") == [([1, 1, 1], past, 1.0), ([1, 2, 2], past, 0.0)]
    past = [(1, 2), (2, 1)]
    assert rows_of(samples, "validation") == [([1, 0, 0], past, 1.0)]
    assert rows_of(samples, "test") == [([1, 0, 0], past, 0.0)]


def test_too_little_to_train_on_is_an_error():
    settings = settings_of(baselines={"min_history": 100})
    with pytest.raises(DataError, match=r"none of \d+ interactions is outside .* and has 100 earlier ones"):
        samples_of(random_dataset(settings, timed=False), settings)
