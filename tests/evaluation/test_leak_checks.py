"""Each check of data set, retriever, evidence and roles finds a leak that is planted in the tables that it reads."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from optirag_core.data.schema import PAIRS
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.evaluation.leak_checks import (
    check_evidence,
    check_evidence_moments,
    check_graph,
    check_learned,
    check_nodes,
    check_roles,
    check_splits,
    check_vectors,
)
from optirag_core.evidence.evidence import Evidence

from .leak_world import DAY, broken, changed, with_row, world


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("method", ["leave_last_out", "last_share", "time_cut"])
def test_sound_splits(method, timed):
    table = world(timed=timed)
    checks = check_splits(table.take(np.random.default_rng(0).permutation(len(table))), method)
    assert broken(checks) == []
    assert {check.checked for check in checks} == {15}


def test_planted_split_leaks():
    table = world()
    once, ordered, *_ = (check.name for check in check_splits(table, "last_share"))
    repeated = changed(table, 4, item_id="i0")
    assert broken(check_splits(repeated, "last_share")) == [(once, 2, "user_id a, item_id i0, split train")]
    relabelled = changed(table, 4, split="train")
    assert broken(check_splits(relabelled, "last_share")) == [(ordered, 1, "user_id a, item_id i4, split train")]
    two = changed(table, 3, split="test")
    assert broken(check_splits(two, "last_share")) == []
    [(rule, number, _)] = broken(check_splits(two, "leave_last_out"))
    assert (rule, number) == ("one validation and one test row of each user at most", 2)


def test_planted_time_leaks():
    table = world()
    late = changed(table, 1, event_time=DAY + timedelta(days=9))
    [(rule, number, example)] = broken(check_splits(late, "last_share"))
    assert (rule, number) == ("a user's times do not decrease", 1)
    assert example == "user_id a, item_id i2, split tune"
    for split_of in (changed(table, 2, event_time=DAY + timedelta(days=3)), late):
        [(rule, number, _)] = broken(check_splits(split_of, "time_cut"))
        assert (rule, number) == ("validation and test are behind their cuts in time", 1)


@pytest.mark.parametrize(("row", "seen"), [(0, False), (2, True), (3, True), (4, True)])
def test_planted_edges(row, seen):
    table = world()
    edges = table.filter(pc.equal(table["split"], "train")).select(["user_id", "item_id"])
    check = check_graph(pa.concat_tables([edges, table.select(edges.column_names).slice(row, 1)]), table)
    assert (check.checked, check.violations) == (7, int(seen))
    assert check.example == (f"user_id a, item_id i{row}" if seen else None)
    stranger = with_row(edges, user_id="a", item_id="nowhere")
    assert check_graph(stranger, table).example == "user_id a, item_id nowhere"


def test_planted_nodes():
    """i6 has a test row alone, and d none at all."""
    users, items = pa.array(["a", "d"], pa.large_string()), pa.array(["i0", "i6"], pa.large_string())
    assert broken(check_nodes(users, items, world())) == [
        ("every user with a vector has training interactions", 1, "user_id d"),
        ("every item with a vector has training interactions", 1, "item_id i6"),
    ]


def test_vectors_by_hand():
    """Items on two axes: a and b have two of them, and c's vector knows a third."""
    axes = {"i0": [1.0, 0.0], "i1": [1.0, 0.0], "i2": [0.0, 1.0], "i3": [1.0, 0.0], "i4": [0.0, 1.0]}

    def fold_in(items):
        summed = np.sum([axes[item] for item in items], axis=0)
        return summed / np.linalg.norm(summed)

    vectors = np.stack([fold_in(["i0", "i1"]), fold_in(["i1", "i2"]), fold_in(["i2", "i3", "i4"])])
    check = check_vectors(["a", "b", "c"], vectors, fold_in, world())
    assert (check.checked, check.violations, check.example) == (3, 1, "user_id c")


ITEMS = pa.table({"item_id": [f"i{number}" for number in range(9)], "title": ["t"] * 9})


@pytest.mark.parametrize("timed", [True, False])
def test_planted_evidence(timed):
    table = world(timed=timed)
    asked = labelled_pairs(requests_for(table, "test"))
    sound = Evidence.of(table, ITEMS, [])
    checks = [*check_evidence(sound, table), *check_evidence_moments(sound, asked, table)]
    assert broken(checks) == []
    assert [check.checked for check in checks] == [3, 7, 3, 3]
    leaking = Evidence.of(changed(table, 4, split="validation"), ITEMS, [])  # a's test row, of i4
    assert broken(check_evidence(leaking, table)) == [
        ("evidence of every user counts the interactions outside of the test split", 1, "user_id a"),
        ("evidence of every item counts the interactions outside of the test split", 1, "item_id i4"),
    ]


def test_planted_evidence_of_a_later_moment():
    """Counts at the end of time instead of the request's: of a's item i4 b's validation and c's tune row."""
    table = world()
    asked = labelled_pairs(requests_for(table, "test"))
    early = changed(asked.select(PAIRS.names), 0, as_of=DAY + timedelta(days=3))

    class Late(Evidence):
        """Answers as if all pairs were asked later."""

        def sums(self, pairs):
            return super().sums(asked.select(PAIRS.names))

    late = Late.of(table, ITEMS, [])
    name = "evidence of an asked pair's {} counts what came before the request"
    assert broken(check_evidence_moments(late, early, table)) == [
        (name.format("user"), 1, "user_id a, item_id i4"), (name.format("item"), 1, "user_id a, item_id i4"),
    ]  # fmt: skip
    assert broken(check_evidence_moments(Evidence.of(table, ITEMS, []), early, table)) == []


def test_planted_roles():
    """Who teaches two parts, and a test pair that heads learned from."""
    assert broken([check_roles({"llm": ["a", "a"], "heads": ["b"], "policy": ["c"]})]) == []
    check = check_roles({"llm": ["a", "b"], "heads": ["b", "b"], "policy": []})
    assert (check.checked, check.violations, check.example) == (2, 1, "user_id b")
    learned = pa.table({"user_id": ["a", "a", "b"], "item_id": ["i2", "i3", "i5"]})
    check = check_learned(learned, world())
    assert (check.checked, check.violations, check.example) == (3, 1, "user_id b, item_id i5")
