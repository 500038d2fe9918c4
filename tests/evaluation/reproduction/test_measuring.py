"""What is measured of a finished run: replays are what the run itself scored, and every policy has a family."""

import numpy as np
import pytest

from optirag_core.data.dataset import Dataset
from optirag_core.errors import DataError
from optirag_core.evaluation.labels import LabelledScores
from optirag_core.evaluation.reproduction.answering import MULTI_HEAD, RETRIEVER_ONLY, SINGLE_HEAD
from optirag_core.evaluation.reproduction.measuring import BOTH, CERTIFIED, EVIDENCE_ALONE, family, whole
from optirag_core.evaluation.reproduction.rates import whole_path
from optirag_core.evaluation.reproduction.variants import changed
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.runs.reader import read_artifact

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def found(finished_run):
    artifacts = open_artifacts(finished_run, *TRAINED[:5], "exit_features", *TRAINED[5:], "scores")
    return artifacts, whole(finished_run, artifacts)


def test_the_certified_policy_is_replayed_as_the_run_has_scored(found):
    artifacts, measured = found
    interactions = Dataset.load(artifacts["dataset"].path).interactions
    run = LabelledScores.of(read_artifact(artifacts["scores"]), interactions)
    pairs = [(row["user_id"], row["item_id"]) for row in run.pairs.to_pylist()]
    answer = measured.at(pairs).answers[CERTIFIED]

    assert measured.at(pairs).labels.tolist() == run.labels.tolist()
    np.testing.assert_allclose(answer.scores, run.scores, atol=1e-5)
    assert answer.exit_layers.tolist() == run.exit_layers.tolist()


def test_exits_cost_less_than_full_depth_and_the_evidence_alone_nothing(found):
    answers = found[1].answers

    assert {RETRIEVER_ONLY, MULTI_HEAD, SINGLE_HEAD, BOTH, EVIDENCE_ALONE} <= set(answers)
    assert answers[RETRIEVER_ONLY].flops_share == 1.0 and answers[MULTI_HEAD].flops_share <= 1.0
    assert answers["evidence first, 0.500"].flops_share == 0.0
    np.testing.assert_allclose(answers["evidence first, 0.500"].scores, answers[EVIDENCE_ALONE].scores, atol=1e-7)
    shares = [each.flops_share for name, each in answers.items() if name.startswith("confidence, ")]
    assert shares == sorted(shares, reverse=True)  # thresholds fall


def test_policies_have_families_and_other_answers_none(found):
    named = {name: family(name) for name in found[1].answers}

    assert named["ratio, 0.01"] == "ratio" and named["patience, 0"] == "patience"
    assert named[BOTH] is None and named["threshold 0.01"] is None and named["head at layer 3"] is None


def test_rates_are_of_the_same_pairs_or_of_none(found, finished_run):
    short = changed(finished_run, {"prompt": {"max_tokens": 20}})

    with pytest.raises(DataError, match=r"short: full depth: 0 of \d+ pairs fit into prompts"):
        whole_path(finished_run, found[0], {"short": (short, found[0])}, device="cpu")
