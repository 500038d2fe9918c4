"""Each check of prompts finds a leak that is planted in what they show, and in what the real assembler knows."""

from datetime import UTC, datetime, timedelta

import pytest

from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.evaluation.prompt_leaks import check_prompts, shown_tables, watched
from optirag_core.prompting.assembly import requests_from
from tests.prompting.small import assembler

from .leak_world import DAY, broken, changed, with_row, world


def shown(tokenizer, table, histories=None):
    """(entries, profiles, asked, interactions): what the real assembler shows to the table's test requests.

    Args:
        histories: what the assembler knows, where it is not the table.
    """
    rows = (table if histories is None else histories).to_pylist()
    known = [(*(row[name] for name in ("user_id", "item_id", "rating", "split")), *_time(row)) for row in rows]
    requests, built = requests_for(table, "test"), assembler(tokenizer, known)
    contexts = watched(built._builder)
    built.assemble(requests_from(requests))
    return *shown_tables(contexts, requests), labelled_pairs(requests), table


def _time(row):
    time = row["event_time"]
    return [] if time is None else [(time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)]


OWN, SIMILAR, ASKED, SELF, MEANS = (
    "a user's own entry lies before the request",
    "a similar user's entry is a training interaction before the request",
    "no asked pair is among the entries, the user's own or others'",
    "a similar user is somebody else",
    "a shown mean of ratings is of training interactions before the request",
)


@pytest.mark.parametrize("timed", [True, False])
def test_sound_prompts(byte_tokenizer, timed):
    """Everybody sees four entries of their own and the two training interactions of two others."""
    checks = check_prompts(*shown(byte_tokenizer, world(timed=timed)))
    assert broken(checks) == []
    assert {check.name: check.checked for check in checks} == {OWN: 12, SIMILAR: 12, ASKED: 24, SELF: 6, MEANS: 9}


@pytest.mark.parametrize(
    ("timed", "planted", "rules"),
    [
        (True, {"owner": "a", "item_id": "i4"}, {OWN, ASKED}),  # what is asked itself
        (False, {"owner": "a", "item_id": "i4"}, {OWN, ASKED}),
        (True, {"owner": "a", "item_id": "i2", "as_of": DAY + timedelta(days=2)}, {OWN}),  # at the moment
        (True, {"owner": "a", "item_id": "i2", "as_of": DAY + timedelta(days=3)}, set()),
        (False, {"owner": "a", "item_id": "i2", "as_of_position": 2}, {OWN}),
        (False, {"owner": "a", "item_id": "i2", "as_of_position": 3}, set()),
        (False, {"owner": "a", "item_id": "nowhere"}, {OWN}),
        (True, {"owner": "b", "item_id": "i3", "similar": True}, {SIMILAR}),  # tune
        (False, {"owner": "b", "item_id": "i3", "similar": True}, {SIMILAR}),
        (True, {"owner": "b", "item_id": "i5", "similar": True}, {SIMILAR, ASKED}),  # b's own question
        (True, {"owner": "b", "item_id": "i2", "similar": True, "as_of": DAY + timedelta(days=1)}, {SIMILAR}),
        (True, {"owner": "b", "item_id": "i2", "similar": True, "as_of": DAY + timedelta(days=2)}, set()),
        (False, {"owner": "b", "item_id": "i2", "similar": True, "as_of_position": 0}, set()),  # b's order is another
        (False, {"owner": "a", "item_id": "i4", "similar": True}, {SIMILAR, ASKED}),  # a, said to be somebody else
    ],
)
def test_planted_entries(byte_tokenizer, timed, planted, rules):
    entries, *others = shown(byte_tokenizer, world(timed=timed))
    row = {"user_id": "a", "as_of": DAY + timedelta(days=4) if timed else None, "as_of_position": 4, "similar": False}
    checks = check_prompts(with_row(entries, **(row | planted)), *others)
    assert {rule for rule, _, _ in broken(checks)} == rules
    assert all(number == 1 for _, number, _ in broken(checks))
    assert all(f"item_id {planted['item_id']}" in example for *_, example in broken(checks))


def test_planted_profiles(byte_tokenizer):
    """a's training ratings are 0 and 1; one before a moment of day 1."""
    entries, profiles, *others = shown(byte_tokenizer, world())
    mine = {"user_id": "b", "as_of": DAY + timedelta(days=4), "as_of_position": 4, "owner": "a", "similar": True}
    for mean, moment, rules in ((0.5, 4, []), (0.6, 4, [MEANS]), (None, 4, [MEANS]), (0.0, 1, []), (0.5, 1, [MEANS])):
        planted = with_row(profiles, **(mine | {"mean": mean, "as_of": DAY + timedelta(days=moment)}))
        assert [rule for rule, _, _ in broken(check_prompts(entries, planted, *others))] == rules
    itself = with_row(profiles, **(mine | {"user_id": "a", "mean": 0.5}))
    assert [rule for rule, _, _ in broken(check_prompts(entries, itself, *others))] == [SELF]


@pytest.mark.parametrize("timed", [True, False])
def test_an_assembler_that_knows_too_much_is_seen(byte_tokenizer, timed):
    """b's test row is in its histories as a training row, and where there are times as an early one."""
    table = world(timed=timed)
    leaking = changed(table, 9, split="train", event_time=DAY if timed else None)
    found = {rule: number for rule, number, _ in broken(check_prompts(*shown(byte_tokenizer, table, leaking)))}
    assert found[SIMILAR] == 2  # shown to a and to c
    assert found[MEANS] >= 2
    assert found[ASKED] == 2
