"""What a decoder must be like for its layers to be taken apart."""

import pytest
import torch
from transformers import GraniteConfig, Phi3Config

from optirag_core.engine.decoder import Decoder
from optirag_core.errors import ModelError
from tests.engine.models import CONFIGS, SHAPE, tiny_model


@pytest.mark.parametrize("family", CONFIGS)
def test_llamas_relatives_are_taken(family):
    Decoder(tiny_model(CONFIGS[family]), window=3)


@pytest.mark.parametrize(
    "config", [GraniteConfig(**SHAPE, residual_multiplier=0.5), Phi3Config(**SHAPE, pad_token_id=0)]
)
def test_a_layer_that_does_more_than_llamas_is_refused(config):
    with pytest.raises(ModelError, match="Llama"):
        Decoder(tiny_model(config), window=3)


def test_the_check_leaves_the_seed_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    Decoder(model, window=3)

    assert torch.equal(torch.rand(1), expected)
