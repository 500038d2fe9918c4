"""Sentences say which way a difference points, and that it is noise where its interval holds 0."""

from dataclasses import replace

import pytest

from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.bootstrap import Difference
from optirag_core.evaluation.sentences import (
    headline,
    paired,
    policy_sentences,
    policy_words,
    signed,
    standing,
    worth_sentences,
)
from optirag_core.evaluation.worth import Gain

UP, DOWN, NOTHING = Difference(0.02, 0.01, 0.03), Difference(-0.02, -0.03, -0.01), Difference(-0.0007, -0.0016, 0.0002)
FULL_DEPTH = ExitPolicy("none", window=3, threshold=0.01)


def test_a_difference_by_hand():
    assert paired(NOTHING) == "-0.0007 (95 %: -0.0016 to +0.0002)"
    assert signed(-1e-9) == "+0.0000"


@pytest.mark.parametrize(
    ("over_evidence", "sentence"),
    [
        (Gain(UP, DOWN), "The LLM adds to the evidence: AUC +0.0200 (95 %: +0.0100 to +0.0300)."),
        (Gain(DOWN, UP), "The LLM takes from the evidence: AUC -0.0200 (95 %: -0.0300 to -0.0100)."),
        (
            Gain(NOTHING, DOWN),
            "The LLM adds nothing that can be told from noise to the evidence: AUC -0.0007 (95 %: -0.0016 to +0.0002).",
        ),
        (Gain(None, DOWN), "The LLM adds to the evidence: log loss -0.0200 (95 %: -0.0300 to -0.0100)."),
        (Gain(None, UP), "The LLM takes from the evidence: log loss +0.0200 (95 %: +0.0100 to +0.0300)."),
    ],
)
def test_what_the_llm_adds(summary_with_worth, over_evidence, sentence):
    first, second = worth_sentences(replace(summary_with_worth.worth, over_evidence=over_evidence))
    assert first == sentence
    assert second.startswith("The evidence adds to the LLM: AUC +0.1")


def test_without_evidence_the_llm_stands_alone(summary_with_worth):
    [sentence] = worth_sentences(replace(summary_with_worth.worth, over_evidence=None))
    assert "read no evidence" in sentence


@pytest.mark.parametrize(
    ("over_best", "good", "end"),
    [
        (UP, True, "its AUC differs by +0.0200 (95 %: +0.0100 to +0.0300)."),
        (NOTHING, False, "-0.0007 (95 %: -0.0016 to +0.0002): nothing that can be told from noise."),
    ],
)
def test_the_headline_is_paired_with_the_best_floor(summary, over_best, good, end):
    found = headline(replace(summary, over_floors=summary.over_floors | {summary.best_floor: over_best}))
    assert found.good == good
    assert found.text.startswith(f"The model's AUC is above every floor. From the best floor, {summary.best_floor}, ")
    assert found.text.endswith(end)


def test_standings_by_hand():
    assert standing(UP).text == "AUC 0.0200 below the model (0.0100 to 0.0300)"
    assert (standing(DOWN).beats, standing(DOWN).text) == (True, "beats the model by 0.0200 AUC (0.0100 to 0.0300)")
    assert standing(Difference(0.0, -0.1, 0.1)).text == "AUC equal to the model"
    above, below = standing(NOTHING), standing(Difference(0.0007, -0.0002, 0.0016))
    assert above.text == "not told apart from the model: AUC 0.0007 above it (-0.0002 to 0.0016)"
    assert below.text == "not told apart from the model: AUC 0.0007 below it (-0.0002 to 0.0016)"
    assert (above.beats, below.beats) == (False, False)
    assert (standing(None).beats, standing(None).text) == (False, "")


def test_a_certified_policy_says_its_bound_and_what_it_changed(calibration):
    right, changed = policy_sentences(calibration.certified.policy, calibration, Gain(NOTHING, UP))
    assert right == f"Certified: {calibration.statement}."
    assert changed == (
        "On the scored pairs, stopping early changed AUC by -0.0007 (95 %: -0.0016 to +0.0002) and log loss in "
        "nats by +0.0200 (95 %: +0.0100 to +0.0300), against full depth."
    )
    assert len(policy_sentences(calibration.certified.policy, calibration, None)) == 1


def test_a_policy_named_by_hand_is_uncertified():
    [sentence] = policy_sentences(replace(FULL_DEPTH, criterion="ratio"), None, None)
    assert sentence.startswith("Uncertified")
    assert policy_sentences(replace(FULL_DEPTH, evidence_confidence=0.9), None, None) == [sentence]


def test_full_depth_needs_no_certificate(calibration):
    assert policy_sentences(FULL_DEPTH, None, Gain(NOTHING, UP)) == ["Every pair went through all layers."]
    none_passed = replace(calibration, chosen=0)
    [sentence] = policy_sentences(FULL_DEPTH, none_passed, None)
    assert sentence.endswith("Full depth: no cheaper policy passed on 1,250 users.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "none: full depth"),
        ({"criterion": "ratio"}, "ratio, threshold 0.01, window 3"),
        ({"criterion": "patience"}, "patience, window 3"),
        ({"evidence_confidence": 0.97}, "evidence alone decides from 0.9700 sure"),
        (
            {"criterion": "entropy", "group_stop": 2, "frozen_prefix_after": 4},
            "entropy, threshold 0.01, window 3, a user's pairs stop together once fewer than 2 are left, prefix frozen "
            "after layer 4",
        ),
    ],
)
def test_a_policy_in_words(changes, words):
    assert policy_words(replace(FULL_DEPTH, **changes)) == words
