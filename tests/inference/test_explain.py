"""An explanation says what the live run did: the same score at the layer where the pair stopped, and why there."""

from dataclasses import replace
from hashlib import sha256
from struct import pack

import numpy as np
import pytest

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.views import HeadView
from optirag_core.evidence.model import EvidenceModel
from optirag_core.inference.explain import explain_group, prompt_sha256, stop_sentence
from tests.engine.models import CONFIGS, random_group, random_heads, tiny_model

NUM_FEATURES = 3
GROUPS = [
    random_group(*sizes, seed, num_features=NUM_FEATURES)
    for seed, sizes in enumerate([(30, [5, 2, 5, 1, 8, 3]), (12, [4, 2, 9, 4, 1, 1, 6, 5, 5, 2]), (25, [7, 7])])
]
EVIDENCE = EvidenceModel(np.zeros(3), np.ones(3), np.array([1.0, -0.5, 0.25], np.float32), bias=0.1)
RATIO = ExitPolicy("ratio", window=3, threshold=0.05)


@pytest.fixture(scope="module")
def informed():
    model = tiny_model(CONFIGS["llama"])
    return model, random_heads(model, num_features=NUM_FEATURES)


@pytest.mark.parametrize(
    "policy",
    [
        RATIO,
        replace(RATIO, evidence_confidence=0.85),
        replace(RATIO, group_stop=3),
        replace(RATIO, frozen_prefix_after=2),
        ExitPolicy("confidence", window=2, threshold=0.8),
        ExitPolicy("none", window=2, threshold=0.0),
    ],
)
def test_the_view_at_the_exit_layer_is_the_live_score(informed, policy):
    scorer = Scorer(*informed, policy, max_tokens_in_flight=200)
    for group, scores in zip(GROUPS, scorer.score(GROUPS).scores, strict=True):
        for pair, explained in zip(scores, explain_group(scorer, group, scores, EVIDENCE), strict=True):
            [view] = [view for view in explained.heads if view.layer == pair.exit_layer]
            assert view.score == pytest.approx(pair.score, abs=1e-5)
            assert view.in_use
            assert view.stops != pair.forced
            assert not any(each.in_use and each.stops for each in explained.heads if each.layer < pair.exit_layer)
            assert f"p(yes) = {pair.score:.4f} from the" in explained.stop
            assert f"layer {pair.exit_layer}" in explained.stop


def test_what_the_evidence_says_by_hand(informed):
    # 1 * 1 - 0.5 * 2 + 0.25 * 4 + 0.1 = 1.1, and sigmoid(1.1) = 0.750260
    group = UserGroup([1, 2], [[3]], [[1.0, 2.0, 4.0]])
    [explained] = explain_group(Scorer(*informed, RATIO), group, [PairScore(0.5, 7)], EVIDENCE)
    assert explained.evidence_score == pytest.approx(0.750260, abs=1e-6)


def test_groups_without_evidence_and_without_candidates(informed):
    model, _ = informed
    scorer = Scorer(model, random_heads(model), RATIO)
    bare = replace(GROUPS[0], evidence=None)
    explained = explain_group(scorer, bare, *scorer.score([bare]).scores, EVIDENCE)
    assert {each.evidence_score for each in explained} == {None}
    assert explain_group(scorer, UserGroup([1], [], []), [], EVIDENCE) == []


def test_explaining_leaves_groups_in_flight_alone(informed):
    expected = Scorer(*informed, RATIO).score(GROUPS).scores
    scorer = Scorer(*informed, RATIO)
    scorer.add(GROUPS)
    explain_group(scorer, GROUPS[0], expected[0], EVIDENCE)
    came = {}
    while not scorer.is_finished:
        came |= {group.number: group.scores for group in scorer.step()}
    assert [came[number] for number in sorted(came)] == expected


def view(layer: int, *, statistic: float | None = 0.004, in_use: bool = True) -> HeadView:
    return HeadView(layer, 0.7, None, 0.8, in_use, True, (0.1, 0.2, 0.3, 0.7), statistic)


VIEWS = [view(0, statistic=0.93), view(5), view(8, statistic=None)]


@pytest.mark.parametrize(
    ("pair", "policy", "said"),
    [
        (PairScore(0.7, 5), RATIO, "the head at layer 5, the first that was stable: the last change of p_yes / p_no is "
         "0.00400 off the mean of those before, below 0.05."),
        (PairScore(0.7, 5), replace(RATIO, criterion="probability"), "of p_yes is 0.00400 off"),
        (PairScore(0.7, 5), replace(RATIO, criterion="confidence"), "it is 0.00400 sure, at least 0.05 suffices."),
        (PairScore(0.7, 5), replace(RATIO, criterion="entropy"), "its entropy is 0.00400 nats, at most 0.05 suffices."),
        (PairScore(0.7, 5), replace(RATIO, criterion="patience"), "one answer on all 4 layers of its window."),
        (PairScore(0.7, 5, forced=True), replace(RATIO, group_stop=2), "layer 5: fewer than 2 of the user's"),
        (PairScore(0.7, 0), replace(RATIO, evidence_confidence=0.9), "the head at layer 0, which reads the evidence "
         "alone: it is 0.93000 sure, at least 0.90000 suffices."),
        (PairScore(0.7, 8), RATIO, "the LLM's own head at layer 8: no exit head was stable."),
    ],
)  # fmt: skip
def test_a_sentence_says_which_head_and_why(pair, policy, said):
    sentence = stop_sentence(pair, VIEWS, policy)
    assert sentence.startswith("p(yes) = 0.7000 from ")
    assert said in sentence


def test_full_depth_says_that_no_head_is_in_use():
    views = [view(5, in_use=False), view(8, statistic=None)]
    sentence = stop_sentence(PairScore(0.7, 8), views, replace(RATIO, criterion="none"))
    assert sentence == "p(yes) = 0.7000 from the LLM's own head at layer 8: no exit head is in use."


def test_a_prompt_is_named_by_its_token_ids():
    assert prompt_sha256([1, 2], [32_000]) == sha256(pack("<3i", 1, 2, 32_000)).hexdigest()
    assert prompt_sha256([1], [2, 32_000]) == prompt_sha256([1, 2], [32_000]) != prompt_sha256([1, 2], [3])
