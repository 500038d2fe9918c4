"""Heads that read evidence beside the hidden state, and groups that bring it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import AnswerHead, EvidenceHead, ExitHeads, evidence_of, lm_answer_head, p_yes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ArtifactMismatch, ModelError
from tests.engine.models import ANSWERS, CONFIGS, random_group, random_heads, tiny_model
from tests.reference import PlainScorer, evidence_logit, score_pair

NUM_FEATURES = 5
RATIO = ExitPolicy("ratio", window=3, threshold=0.05)
SIZES = [(40, [3, 7, 3, 1]), (1, []), (90, [5]), (17, [2] * 9 + [6, 1]), (1, [4, 4])]
GROUPS = [random_group(*sizes, seed, num_features=NUM_FEATURES) for seed, sizes in enumerate(SIZES)]


@pytest.fixture(scope="module")
def informed(model):
    """Heads that read evidence."""
    return random_heads(model, num_features=NUM_FEATURES)


def evidence_head(weights, bias) -> EvidenceHead:
    head = EvidenceHead(len(weights))
    head.weight.copy_(torch.tensor(weights))
    head.bias.fill_(bias)
    return head


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_an_evidence_head_by_hand():
    head = evidence_head([2.0, -1.0, 0.5], 0.25)
    # 2 * 1 - 1 * 3 + 0.5 * 4 + 0.25 = 1.25;  2 * 0 - 1 * 0 + 0.5 * (-1) + 0.25 = -0.25
    logits = head(torch.tensor([[1.0, 3.0, 4.0], [0.0, 0.0, -1.0]]))
    assert logits.tolist() == [[1.25, 0.0], [-0.25, 0.0]]


def test_an_answer_head_adds_the_evidence_to_yes_alone(model):
    plain, head = lm_answer_head(model, ANSWERS), lm_answer_head(model, ANSWERS, 2)
    head.evidence = evidence_head([0.5, 2.0], -1.0)
    hidden, evidence = rows(3, 32), torch.tensor([[2.0, 1.0], [0.0, 0.0], [-4.0, 0.5]])
    # 0.5 * 2 + 2 * 1 - 1 = 2;  -1;  0.5 * (-4) + 2 * 0.5 - 1 = -2
    torch.testing.assert_close(head(hidden, evidence) - plain(hidden), torch.tensor([[2.0, 0], [-1.0, 0], [-2.0, 0]]))
    window = hidden[:, None].expand(3, 4, 32)  # every state of a window with its pair's evidence
    torch.testing.assert_close(head(window, evidence), head(hidden, evidence)[:, None].expand(3, 4, 2))


def test_without_features_a_head_is_the_plain_one_to_the_bit(model):
    weight = model.lm_head.weight[list(ANSWERS)]
    plain, untrained = AnswerHead(model.model.norm, weight), AnswerHead(model.model.norm, weight, NUM_FEATURES)
    assert torch.equal(plain(rows(9, 32)), untrained(rows(9, 32), rows(9, NUM_FEATURES)))
    heads = ExitHeads(model, (3, 5), ANSWERS)
    assert sorted(heads.heads) == ["3", "5", "7"]
    assert (heads.layers, heads.num_features) == ((3, 5), 0)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 80), st.sampled_from([1, 2, 7, 8, 30]), st.integers(0, 99))
def test_a_pairs_bits_do_not_depend_on_its_neighbours(model, count, width, seed):
    heads = random_heads(model, num_features=width)
    hidden, evidence = rows(count * 4, 32, seed).view(count, 4, 32), rows(count, width, seed + 1)
    together = heads[3](hidden, evidence), heads.on_evidence(0)(evidence)
    for pair in {0, count // 2, count - 1}:
        alone = slice(pair, pair + 1)
        assert torch.equal(heads[3](hidden[alone], evidence[alone]), together[0][alone])
        assert torch.equal(heads.on_evidence(0)(evidence[alone]), together[1][alone])


def test_heads_start_at_the_plain_copy_plus_the_floors_logit(model):
    heads, plain = ExitHeads(model, (3, 5), ANSWERS, 2), lm_answer_head(model, ANSWERS)
    heads.start_from_evidence(torch.tensor([1.0, -2.0]), 0.5)
    hidden, evidence = rows(4, 32), rows(4, 2, seed=1)
    floor = evidence[:, 0] - 2 * evidence[:, 1] + 0.5
    torch.testing.assert_close(p_yes(heads.on_evidence(0)(evidence)), floor.sigmoid())
    difference = plain(hidden)[:, 0] - plain(hidden)[:, 1]
    for layer in (3, 5, 7):
        torch.testing.assert_close(p_yes(heads[layer](hidden, evidence)), (difference + floor).sigmoid())


def test_full_depth_that_gives_the_hidden_state_no_weight_says_what_the_evidence_says(model):
    heads = ExitHeads(model, (3, 5), ANSWERS, 2)
    heads.start_from_evidence(torch.tensor([1.0, -2.0]), 0.5)
    assert not heads.only_evidence  # a copy of the LM's head
    with torch.no_grad():
        heads[7].weight.zero_()
    evidence = rows(4, 2, seed=1)
    assert heads.only_evidence
    assert torch.equal(heads[7](rows(4, 32), evidence), heads.on_evidence(0)(evidence))
    with torch.no_grad():
        heads[7].evidence.bias += 0.1
    assert not heads.only_evidence
    assert not ExitHeads(model, (3, 5), ANSWERS).only_evidence


def test_heads_with_evidence_are_saved_and_loaded_whole(model, informed, tmp_path):
    informed.save(tmp_path)
    loaded = ExitHeads(model, informed.layers, ANSWERS, NUM_FEATURES)
    loaded.load(tmp_path)
    assert loaded.state_dict().keys() == informed.state_dict().keys()
    assert all(torch.equal(tensor, informed.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert loaded.on_evidence(0).weight.any() and loaded[7].evidence.weight.any()


@pytest.mark.parametrize("num_features", [0, NUM_FEATURES - 1, NUM_FEATURES + 1])
def test_heads_of_another_number_of_features_are_refused(model, informed, tmp_path, num_features):
    informed.save(tmp_path)
    with pytest.raises(ArtifactMismatch, match=f"and {num_features} features of evidence"):
        ExitHeads(model, informed.layers, ANSWERS, num_features).load(tmp_path)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("max_tokens", [200, 16384])
def test_the_packed_engine_equals_the_reference(family, max_tokens):
    model = tiny_model(CONFIGS[family])
    heads = random_heads(model, num_features=NUM_FEATURES)
    scored = Scorer(model, heads, RATIO, max_tokens_in_flight=max_tokens).score(GROUPS).scores
    for group, pairs in zip(GROUPS, scored, strict=True):
        for suffix, evidence, pair in zip(group.suffixes, group.evidence, pairs, strict=True):
            expected = score_pair(model, heads, RATIO, ANSWERS, [*group.prefix, *suffix], evidence)
            assert pair.exit_layer == expected.exit_layer
            assert pair.score == pytest.approx(expected.score, abs=1e-4)


def test_the_plain_padded_scorer_agrees(model, informed):
    packed = Scorer(model, informed, RATIO).score(GROUPS).scores
    plain = PlainScorer(model, informed, RATIO, batch_size=4).score(GROUPS)
    for pairs, others in zip(packed, plain, strict=True):
        assert [pair.exit_layer for pair in pairs] == [pair.exit_layer for pair in others]
        assert [pair.score for pair in pairs] == pytest.approx([pair.score for pair in others], abs=1e-4)
    assert len({pair.exit_layer for pairs in packed for pair in pairs}) > 2


def test_evidence_changes_scores_and_heads_that_read_none_ignore_it(model, heads, informed):
    bare = [replace(group, evidence=None) for group in GROUPS]
    zeros = [replace(group, evidence=[[0.0] * NUM_FEATURES for _ in group.suffixes]) for group in GROUPS]
    assert Scorer(model, heads, RATIO).score(GROUPS).scores == Scorer(model, heads, RATIO).score(bare).scores
    with_evidence, without = (Scorer(model, informed, RATIO).score(groups).scores for groups in (GROUPS, zeros))
    assert with_evidence != without


def test_deterministic_bits_do_not_depend_on_what_else_is_scored(model, informed):
    scorer = Scorer(model, informed, RATIO, deterministic=True)
    assert scorer.score(GROUPS).scores == [pairs for group in GROUPS for pairs in scorer.score([group]).scores]


def test_evidence_of_a_group_without_candidates():
    assert evidence_of(UserGroup([1], []), NUM_FEATURES).shape == (0, NUM_FEATURES)
    assert evidence_of(UserGroup([1], [], evidence=[]), NUM_FEATURES).shape == (0, NUM_FEATURES)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (None, "a group of 2 candidates came with 0 rows of evidence, and the heads read 5 features"),
        ([[0.0] * 5], "came with 1 rows of evidence"),
        ([[0.0] * 5, [0.0] * 4], "came with 2 rows of evidence of 4 features"),
        ([[0.0] * 6, [0.0] * 6], "came with 2 rows of evidence of 6 features"),
        ([[0.0] * 5, [0.0, 0.0, float("nan"), 0.0, 0.0]], "no finite number"),
    ],
)
def test_evidence_that_does_not_fit_is_refused_before_anything_is_computed(model, informed, evidence, message):
    scorer = Scorer(model, informed, RATIO)
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    wrong = UserGroup([1, 2], [[3], [4, 5]], evidence)
    try:
        for ask in (scorer.score, scorer.add, scorer.trace):
            with pytest.raises(ModelError, match=message):
                ask([GROUPS[0], wrong])
    finally:
        hook.remove()
    assert scorer.is_finished


def test_the_reference_adds_number_by_number():
    assert evidence_logit(evidence_head([2.0, -1.0], 0.25), [1.5, 4.0]) == 2 * 1.5 - 4 + 0.25
