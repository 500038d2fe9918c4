"""Hidden states of labelled pairs: made by the engine, written, and read back by those whom they are for."""

from collections import Counter

import pyarrow as pa
import pytest
import torch

from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import INTERACTIONS
from optirag_core.data.splits import requests_for
from optirag_core.engine.cost import ModelShape
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.trace import Trace
from optirag_core.training.exit_features import (
    LABELLED_PROMPTS,
    features_of,
    labelled_requests,
    read_features,
    read_traces,
    save_features,
)
from tests.conftest import tiny_llama
from tests.reference import hidden_states

from .conftest import ANSWERS

LAYERS = (1, 2, 3, 4)
HEADS_TUNE = {"user_id": "u", "prefix": [1, 2, 3], "suffixes": [[4], [5, 6]], "item_ids": ["a", "b"], "labels": [1, 0],
              "purpose": "heads", "split": "tune", "request": 0}  # fmt: skip
HEADS_VALIDATION = HEADS_TUNE | {"suffixes": [[7]], "item_ids": ["c"], "labels": [1], "split": "validation",
                                 "request": 1}  # fmt: skip
NOTHING_FITS = HEADS_TUNE | {"prefix": [], "suffixes": [], "item_ids": [], "labels": [], "request": 2}
POLICY = {"user_id": "v", "prefix": [9], "suffixes": [[4, 4], [8], [1]], "item_ids": ["a", "d", "e"],
          "labels": [0, 0, 1], "purpose": "policy", "split": "tune", "request": 3}  # fmt: skip
POLICY_TOO = POLICY | {"user_id": "w", "prefix": [9, 9], "suffixes": [[2]], "item_ids": ["d"], "labels": [1],
                       "request": 4}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def scorer(model):
    heads = ExitHeads(model, (3,), ANSWERS)
    return Scorer(model, heads, ExitPolicy("none", window=2, threshold=0.0), max_tokens_in_flight=16)


def prompts(*rows):
    return pa.Table.from_pylist(list(rows), schema=LABELLED_PROMPTS)


@pytest.fixture
def folder(scorer, model, tmp_path):
    """Two files, the second of which is written first."""
    tables = {
        1: features_of(scorer, prompts(POLICY, POLICY_TOO), LAYERS),
        0: features_of(scorer, prompts(HEADS_TUNE, HEADS_VALIDATION, NOTHING_FITS), LAYERS),
    }
    assert save_features(tables.items(), ModelShape.of(model.config), tmp_path) == 7
    return tmp_path


def test_pairs_come_back_in_order_with_the_llms_hidden_states(folder, model):
    features = read_features(folder, "policy")

    assert features.users.tolist() == ["v", "v", "v", "w"]
    assert features.items.tolist() == ["a", "d", "e", "d"]
    assert features.labels.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert features.evidence is None
    whole = [[*row["prefix"], *suffix] for row in (POLICY, POLICY_TOO) for suffix in row["suffixes"]]
    for number, prompt in enumerate(whole):
        expected = hidden_states(model, prompt)
        for layer in LAYERS:
            torch.testing.assert_close(features.at(layer)[number], expected[layer], rtol=0, atol=1e-4)


def test_everybody_reads_their_own_users_rows_alone(folder):
    assert set(read_features(folder, "heads").users) == {"u"}
    assert set(read_features(folder, "policy").users) == {"v", "w"}
    assert read_features(folder, "heads", "tune").items.tolist() == ["a", "b"]
    assert read_features(folder, "heads", "validation").items.tolist() == ["c"]
    nothing = read_features(folder, "test")
    assert (len(nothing.users), nothing.states.states.shape, nothing.states.sizes) == (0, (0, len(LAYERS), 32), ())


def test_evidence_comes_back_and_nothing_of_it_is_as_wide(scorer, model, tmp_path):
    known = [{"evidence": [[0.5, -1.0], [2.0, 0.0]]}, {"evidence": [[3.0, 4.0]]}]
    rows = [row | each for row, each in zip((HEADS_TUNE, HEADS_VALIDATION), known, strict=True)]
    save_features([(0, features_of(scorer, prompts(*rows), LAYERS))], ModelShape.of(model.config), tmp_path)

    assert read_features(tmp_path, "heads").evidence.tolist() == [[0.5, -1.0], [2.0, 0.0], [3.0, 4.0]]
    assert read_features(tmp_path, "policy").evidence.shape == (0, 2)


def test_passes_with_another_frozen_prefix_are_read_apart(scorer, model, tmp_path):
    frozen = Scorer(model, ExitHeads(model, (3,), ANSWERS), ExitPolicy("none", 2, 0.0, frozen_prefix_after=1))
    tables = [features_of(each, prompts(POLICY), LAYERS) for each in (scorer, frozen)]
    save_features([(0, pa.concat_tables(tables))], ModelShape.of(model.config), tmp_path)
    heads = ExitHeads(model, (3,), ANSWERS)

    features, traces = read_traces(tmp_path, heads, 2, [1])

    assert features.items.tolist() == POLICY["item_ids"]
    assert {key: trace.frozen_prefix_after for key, trace in traces.items()} == {None: None, 1: 1}
    assert not torch.equal(traces[None].final_logits, traces[1].final_logits)


def test_requests_by_purpose_and_split():
    """60 users with a tune, a validation and a test row each: the LLM's users give nothing but test requests."""
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{position}", "rating": 1.0, "label": position % 2, "event_time": None,
         "position": position, "split": split}
        for user in range(60)
        for position, split in enumerate(("train", "tune", "validation", "test"))
    ]  # fmt: skip
    nothing = pa.table({"user_id": pa.array([], pa.string())})
    info = {"roles": {"seed": 0, "heads_share": 0.3, "policy_share": 0.3}}
    dataset = Dataset(pa.Table.from_pylist(rows, INTERACTIONS), nothing, nothing, info)
    users = {role: set(dataset.of_role(role)["user_id"].to_pylist()) for role in ("heads", "policy")}
    test = requests_for(dataset.interactions, "test")

    found = labelled_requests(dataset, test, None).to_pylist()
    few = labelled_requests(dataset, test.slice(0, 5), 2)

    assert {(row["purpose"], row["split"]) for row in found} == {
        ("test", "test"), ("heads", "tune"), ("heads", "validation"), ("policy", "validation"),
    }  # fmt: skip
    for role in ("heads", "policy"):
        assert {row["user_id"] for row in found if row["purpose"] == role} == users[role]
    assert [row["request"] for row in found] == list(range(len(found)))
    assert all(row["labels"] == [int(row["item_ids"][0][1:]) % 2] for row in found)
    assert Counter(few["purpose"].to_pylist()) == {"test": 5, "heads": 4, "policy": 2}


def test_a_trace_of_read_features_is_the_engines_own(folder, scorer, model):
    """The same views, groups, parts and lengths: a policy replayed on either costs and says the same."""
    heads = ExitHeads(model, (3,), ANSWERS)
    groups = [UserGroup(row["prefix"], row["suffixes"]) for row in (POLICY, POLICY_TOO)]
    live, read = scorer.trace(groups), Trace.of_states(read_features(folder, "policy").states, heads, None, window=2)

    torch.testing.assert_close(read.logits, live.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(read.final_logits, live.final_logits, rtol=0, atol=1e-5)
    assert (read.sizes, read.shape, read.layers) == (live.sizes, live.shape, live.layers)
    for name in ("prefix_tokens", "suffix_tokens"):
        assert getattr(read, name).tolist() == getattr(live, name).tolist()
    same_part = [(trace.parts[:, None] == trace.parts).tolist() for trace in (read, live)]
    assert same_part[0] == same_part[1]
