import pytest
import torch

from optirag_core.engine.heads import HEADS_FILE, AnswerHead, ExitHeads, lm_answer_head, p_yes
from optirag_core.errors import ArtifactMismatch, ModelError
from tests.conftest import tiny_llama
from tests.reference import full_softmax

ANSWERS = YES, NO = (7, 3)


def trained_heads(model, layers=(1, 3), seed=0):
    """Heads that differ from the LM's and from each other, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    heads = ExitHeads(model, layers, ANSWERS)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return heads


def hidden_states(count=20):
    return 3 * torch.randn(count, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_gives_the_ratio_of_the_softmax_over_the_whole_vocabulary(tied):
    model = tiny_llama(tie_word_embeddings=tied)
    heads = trained_heads(model)
    for head in (heads[1], heads[3]):
        for hidden in hidden_states():
            p = full_softmax(model, head, ANSWERS, hidden)
            z = head(hidden)
            assert (z[0] - z[1]).exp().item() == pytest.approx((p[YES] / p[NO]).item(), rel=1e-4)
            assert p_yes(z).item() == pytest.approx((p[YES] / (p[YES] + p[NO])).item(), abs=1e-6)


def test_an_untrained_head_is_the_lm_head():
    model = tiny_llama()
    head, own = ExitHeads(model, (2,), ANSWERS)[2], lm_answer_head(model, ANSWERS)
    hidden = hidden_states()
    logits = model.lm_head(model.model.norm(hidden))[:, list(ANSWERS)]
    torch.testing.assert_close(head(hidden), logits)
    torch.testing.assert_close(own(hidden), logits)


def test_heads_are_copies_of_their_own():
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heads = ExitHeads(model, (1, 3), ANSWERS)
    with torch.no_grad():
        for parameter in heads[1].parameters():
            parameter.fill_(9.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(heads[3](hidden_states()), lm_answer_head(model, ANSWERS)(hidden_states()))


def test_a_head_copies_the_rows_it_is_given():
    weight = torch.zeros(2, 32)
    head = AnswerHead(tiny_llama().model.norm, weight)
    weight += 1.0
    assert not head(hidden_states()).any()


def test_heads_compute_in_fp32_whatever_the_lm():
    heads = ExitHeads(tiny_llama().bfloat16(), (1,), ANSWERS)
    assert {parameter.dtype for parameter in heads.parameters()} == {torch.float32}
    assert heads[1](hidden_states().bfloat16()).dtype == torch.float32


def test_a_head_holds_two_rows_and_a_norm():
    heads = ExitHeads(tiny_llama(), (1,), ANSWERS)
    assert sorted(tuple(parameter.shape) for parameter in heads[1].parameters()) == [(2, 32), (32,)]
    assert not any(parameter.requires_grad for parameter in heads.parameters())


def test_p_yes_by_hand():
    logits = torch.tensor([[[2.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [100.0, -100.0]]])
    # sigmoid(0) = 0.5, sigmoid(1) = 0.7311, sigmoid(-1) = 0.2689, sigmoid(200) = 1
    torch.testing.assert_close(p_yes(logits), torch.tensor([[0.5, 0.7310586], [0.2689414, 1.0]]))


def test_save_and_load(tmp_path):
    model = tiny_llama()
    heads = trained_heads(model)
    heads.save(tmp_path)
    loaded = ExitHeads(model, (1, 3), ANSWERS)
    loaded.load(tmp_path)
    for layer in (1, 3):
        assert torch.equal(loaded[layer](hidden_states()), heads[layer](hidden_states()))
    assert [path.name for path in tmp_path.iterdir()] == [HEADS_FILE]


@pytest.mark.parametrize(
    ("layers", "changes"),
    [((1, 2), {}), ((1,), {}), ((1, 2, 3), {}), ((1, 3), {"hidden_size": 64})],
    ids=["another layer", "fewer layers", "more layers", "another width"],
)
def test_heads_of_another_model_are_refused(tmp_path, layers, changes):
    trained_heads(tiny_llama()).save(tmp_path)
    with pytest.raises(ArtifactMismatch, match=r"heads\.safetensors does not fit this LLM, exit_heads\.layers"):
        ExitHeads(tiny_llama(**changes), layers, ANSWERS).load(tmp_path)


@pytest.mark.parametrize("layers", [(4,), (1, 5), (1, 3, 99)])
def test_an_exit_layer_at_or_beyond_the_last_is_refused(layers):
    with pytest.raises(
        ModelError, match=rf"reach layer {layers[-1]}, but the LLM has 4 layers .*: set exit_heads\.layers below 4"
    ):
        ExitHeads(tiny_llama(), layers, ANSWERS)


def test_the_layer_before_the_last_is_fine():
    assert ExitHeads(tiny_llama(), (1, 3), ANSWERS).layers == (1, 3)
