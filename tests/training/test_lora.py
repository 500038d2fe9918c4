import pytest
import torch
from peft.tuners.lora import Linear

from optirag_core.config.llm import LoraSettings
from optirag_core.errors import ModelError
from optirag_core.training.lora import with_lora
from tests.conftest import tiny_llama

SETTINGS = LoraSettings(rank=2, alpha=6, dropout=0.0, modules=("q_proj", "down_proj"))
IDS = torch.tensor([[1, 5, 9, 2]])


def test_the_adapters_alone_are_trained_and_change_nothing_yet():
    model = tiny_llama()
    before = model(IDS).logits
    with_lora(model, SETTINGS, seed=0)
    trained = {name.split(".")[-4] for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {"q_proj", "down_proj"}
    assert torch.equal(model(IDS).logits, before)


def test_merged_it_adds_alpha_over_rank_times_the_product():
    """W' = W + 6 / 2 * B A."""
    model = tiny_llama()
    adapted = with_lora(model, SETTINGS, seed=0)
    layer = model.model.layers[1].self_attn.q_proj
    assert isinstance(layer, Linear)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    expected = layer.base_layer.weight + 3.0 * b @ a
    merged = adapted.merge_and_unload().model.layers[1].self_attn.q_proj.weight
    torch.testing.assert_close(merged, expected.detach())


def test_one_seed_one_start():
    def start(seed):
        torch.seed()  # what else drew random numbers must not count
        model = tiny_llama()
        with_lora(model, SETTINGS, seed=seed)
        return model.model.layers[0].self_attn.q_proj.lora_A["default"].weight

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_layers_that_the_llm_lacks_are_named():
    with pytest.raises(ModelError, match=r"modules names query, but the linear layers of this LLM are .*q_proj"):
        with_lora(tiny_llama(), SETTINGS.model_copy(update={"modules": ("q_proj", "query")}), seed=0)
