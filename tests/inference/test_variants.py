"""Other prompts for a trained LLM: without a change the stored features and the committed run, and what changes."""

from functools import partial

import numpy as np
import pytest
import torch

from optirag_core.inference import variants
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_heads
from optirag_core.inference.policy import open_policy
from optirag_core.inference.variants import replayed
from optirag_core.runs.reader import read_artifact
from optirag_core.training.exit_features import read_features

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def artifacts(finished_run):
    return open_artifacts(finished_run, *TRAINED)


@pytest.fixture(scope="module")
def variant(finished_run, artifacts):
    return partial(variants.test_features, finished_run, artifacts)


@pytest.fixture(scope="module")
def unchanged(finished_run, artifacts):
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "REQUESTS_PER_CALL", 50)
        found = variants.test_features(finished_run, artifacts, on_request=told.append)
    assert sum(told) == found.tally.num_requests > 50
    return found


@pytest.fixture(scope="module")
def heads(finished_run, artifacts):
    return open_heads(finished_run, artifacts)[0]


def test_without_a_change_the_stored_features(finished_run, artifacts, unchanged):
    stored = read_features(artifacts.workspace.open("exit_features").path, "test")
    found, tally = unchanged.features, unchanged.tally

    assert found.users.tolist() == stored.users.tolist()
    assert found.items.tolist() == stored.items.tolist()
    assert found.states.layers == stored.states.layers
    assert found.states.sizes == stored.states.sizes
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
