"""Other prompts for a trained LLM: without a change the stored features and the committed run."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from optirag_core.artifacts import Workspace
from optirag_core.config.data import IndexSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import load_llm, load_tokenizer
from optirag_core.engine.policy import ExitPolicy
from optirag_core.errors import ArtifactMismatch, ConfigError
from optirag_core.inference import variants
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_heads, open_scorer
from optirag_core.inference.policy import open_policy
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.inference.variants import replayed, replays
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import load_vectors, save_vectors
from optirag_core.runs.reader import read_artifact
from optirag_core.training.exit_features import read_features
from optirag_core.training.sparsegpt import prune
from tests.finished_run import changed

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def artifacts(finished_run):
    return open_artifacts(finished_run, *TRAINED)


@pytest.fixture(scope="module")
def variant(finished_run, artifacts):
    return partial(variants.test_features, finished_run, artifacts)


@pytest.fixture(scope="module")
def unchanged(variant):
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "REQUESTS_PER_CALL", 50)
        found = variant(on_request=told.append)
    assert sum(told) == found.tally.num_requests
    assert len(told) > 1
    return found


@pytest.fixture(scope="module")
def heads(finished_run, artifacts):
    return open_heads(finished_run, artifacts)[0]


@pytest.fixture(scope="module")
def groups(finished_run, artifacts):
    """Of the test split's requests."""
    dataset = Dataset.load(artifacts["dataset"].path)
    assembler, _ = open_assembler(finished_run, artifacts, load_tokenizer(artifacts["llm"].path))
    return groups_of(assembled_prompts(assembler, requests_for(dataset.interactions, "test")))


@pytest.fixture(scope="module")
def other(artifacts, tmp_path_factory):
    """Another retriever of the same data set, of random vectors, and its index."""
    workspace, made = Workspace(str(tmp_path_factory.mktemp("other"))), {}
    user_ids, vectors = load_vectors(artifacts["retriever"].path, "user")
    vectors = functional.normalize(torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)))
    files = {kind: tmp_path_factory.mktemp(kind) for kind in ("retriever", "index")}
    save_vectors(files["retriever"], "user", user_ids, vectors)
    UserIndex.build(user_ids, vectors, IndexSettings()).save(files["index"])
    for kind, folder in files.items():
        parents = {"dataset": artifacts["dataset"].digest} | {name: each.digest for name, each in made.items()}
        made[kind] = workspace.save(kind, "random", folder, config={}, parents=parents, metrics={})
    return made


def same_pairs(one, two):
    return one.features.users.tolist() == two.features.users.tolist() and (
        one.features.items.tolist() == two.features.items.tolist()
    )


def test_without_a_change_the_stored_features(artifacts, unchanged):
    stored = read_features(artifacts.workspace.open("exit_features").path, "test")
    found, tally = unchanged.features, unchanged.tally

    assert found.users.tolist() == stored.users.tolist()
    assert found.items.tolist() == stored.items.tolist()
    assert (found.states.layers, found.states.sizes) == (stored.states.layers, stored.states.sizes)
    for name in ("prefix_tokens", "suffix_tokens"):
        assert torch.equal(getattr(found.states, name), getattr(stored.states, name))
    torch.testing.assert_close(found.states.states, stored.states.states, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.evidence, stored.evidence)
    assert torch.equal(found.labels, stored.labels)
    assert (tally.num_pairs, tally.num_requests) == (len(stored.users), len(stored.states.sizes))
    assert tally.pairs_per_s == tally.num_pairs / (tally.prompt_s + tally.pass_s)
    assert min(tally.prompt_s, tally.pass_s) > 0


def test_the_certified_policy_gives_the_committed_run(finished_run, artifacts, unchanged, heads):
    run = read_artifact(open_artifacts(finished_run, *TRAINED, "scores")["scores"])
    scored = {(row["user_id"], row["item_id"]): row for row in run.to_pylist()}

    found = replayed(unchanged.features, heads, *open_policy(finished_run, artifacts))

    rows = [scored[pair] for pair in zip(unchanged.features.users, unchanged.features.items, strict=True)]
    assert len(rows) == len(scored)
    np.testing.assert_allclose(found.scores, [row["score"] for row in rows], rtol=0, atol=1e-4)
    assert found.exit_layers.tolist() == [row["exit_layer"] for row in rows]
    assert 0 < found.flops_share <= 1


def test_policies_replayed_together_are_the_live_runs(finished_run, artifacts, unchanged, heads, groups):
    by_hand = [
        {"criterion": "ratio", "threshold": 0.02, "window": 3},
        {"criterion": "ratio", "threshold": 0.02, "window": 2},
        {"criterion": "none", "evidence_confidence": 0.6},
    ]
    settings = [changed(finished_run, exit_policy=each | {"uncertified": True}) for each in by_hand]

    found = replays(unchanged.features, heads, [open_policy(each, artifacts) for each in settings])

    for each, replay in zip(settings, found, strict=True):
        live = open_scorer(each, artifacts).score(groups)
        pairs = [pair for scores in live.scores for pair in scores]
        np.testing.assert_allclose(replay.scores, [pair.score for pair in pairs], rtol=0, atol=1e-4)
        assert replay.exit_layers.tolist() == [pair.exit_layer for pair in pairs]
        assert len(set(replay.exit_layers.tolist())) > 1
        assert replay.flops_share < 1


def test_no_similar_users_are_shown_where_none_are_asked_for(variant, unchanged):
    none, one = (variant(prompt={"num_similar_users": number}) for number in (0, 1))

    assert none.tally.num_similar_users == 0
    assert 0 < one.tally.num_similar_users <= one.tally.num_requests < unchanged.tally.num_similar_users
    assert same_pairs(none, unchanged)
    assert same_pairs(one, unchanged)
    lengths = [each.features.states.prefix_tokens.sum().item() for each in (none, one, unchanged)]
    assert lengths == sorted(set(lengths))


def test_another_retriever_finds_other_users_for_the_same_pairs(variant, unchanged, other):
    found = variant(**other)

    assert same_pairs(found, unchanged)
    assert torch.equal(found.features.evidence, unchanged.features.evidence)
    assert not torch.equal(found.features.states.prefix_tokens, unchanged.features.states.prefix_tokens)
    assert not torch.allclose(found.features.states.states, unchanged.features.states.states, atol=1e-2)


def test_a_retriever_without_its_index_or_of_other_data_is_refused(variant, artifacts, other):
    with pytest.raises(ArtifactMismatch, match=r"index/\w+ was made from retriever"):
        variant(retriever=other["retriever"])
    with pytest.raises(ArtifactMismatch, match="index/random was made from retriever"):
        variant(index=other["index"])
    foreign = other["retriever"]
    manifest = {**foreign.manifest, "parents": {"dataset": "another"}}
    with pytest.raises(ArtifactMismatch, match="retriever/random was made from dataset another"):
        variant(retriever=type(foreign)("retriever", foreign.path, manifest), index=other["index"])


def test_unknown_settings_of_the_prompt_are_named(variant):
    with pytest.raises(ConfigError, match=r"prompt.num_similar: did you mean prompt.num_similar_users"):
        variant(prompt={"num_similar": 3})


def test_a_pruned_llm_answers_in_place_of_the_trained_one(variant, artifacts, unchanged, groups):
    model, _ = load_llm(artifacts["llm"].path)
    prune(model, groups[:8])

    pruned = variant(model=model)

    assert same_pairs(pruned, unchanged)
    first, *_, last = pruned.features.states.layers
    assert torch.equal(pruned.features.at(first), unchanged.features.at(first))  # embeddings
    assert not torch.allclose(pruned.features.at(last), unchanged.features.at(last), atol=1e-2)
    assert pruned.features.states.states.isfinite().all()


def test_a_frozen_prefix_is_recorded_for_policies_that_freeze_it(variant, unchanged, heads):
    """Layer 2 reads the first layer's states of the prefix as ever; above, they have not moved on."""
    frozen = variant(frozen_prefix_after=1)
    deep = ExitPolicy("none", 3, 0.0, frozen_prefix_after=1)

    for layer in frozen.features.states.layers:
        assert torch.allclose(frozen.features.at(layer), unchanged.features.at(layer), atol=1e-5) == (layer <= 2)
    assert replayed(frozen.features, heads, deep, heads.layers).flops_share == 1
    with pytest.raises(ConfigError, match="frozen_prefix_after 1 changes hidden states"):
        replayed(unchanged.features, heads, deep, heads.layers)
