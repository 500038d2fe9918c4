"""The cost model against numbers computed by hand and against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from optirag_core.engine.cost import Cost, ModelShape, group_cost
from tests.engine.models import CONFIGS

SHAPE = ModelShape(num_layers=4, width=8, mlp_width=16, query_width=8, key_width=4)
#  keys and values 4*8*4 = 128; queries and output 4*8*8 = 256; MLP 6*8*16 = 768; a layer 1152 per token


def test_flops_per_token():
    assert SHAPE.key_value_flops == 128
    assert SHAPE.layer_flops == 1152
    with_all_heads = ModelShape(4, 8, 16, 8, 8)
    assert with_all_heads.layer_flops == 2 * (4 * 8**2 + 3 * 8 * 16)


def test_full_depth():
    cost = group_cost(SHAPE, prefix=10, suffixes=[2, 4], exit_layers=[4, 4])

    # 3 whole layers of 16 tokens, then keys and values of 16 tokens and the 2 last tokens
    assert cost.token_layers == 3 * 16 + 2
    assert cost.linear_flops == (3 * 16 + 2) * 1152 + 14 * 128
    prefix = 3 * 2 * 8 * 100
    suffixes = 4 * 8 * (3 * (2 * 11 + 4 * 12) + 12 + 14)
    assert cost.attention_flops == prefix + suffixes
    assert (cost.prefixes, cost.prefix_layers, cost.frozen_token_layers) == (1, 4, 0)


def test_exits_end_suffixes_and_the_deepest_ends_the_prefix():
    cost = group_cost(SHAPE, prefix=10, suffixes=[2, 4], exit_layers=[2, 3])

    assert cost.token_layers == 10 * 2 + 2 * 1 + 1 + 4 * 2 + 1
    assert cost.linear_flops == cost.token_layers * 1152 + (10 + 1 + 3) * 128
    assert cost.attention_flops == 2 * 2 * 8 * 100 + 4 * 8 * (2 * 11 * 1 + 12 + 4 * 12 * 2 + 14)
    assert cost.prefix_layers == 3


def test_a_frozen_prefix_gives_keys_and_values_only():
    cost = group_cost(SHAPE, prefix=10, suffixes=[2], exit_layers=[4], frozen_prefix_after=1)

    assert cost.token_layers == 10 * 1 + 2 * 3 + 1
    assert cost.frozen_token_layers == 10 * 2
    assert cost.linear_flops == cost.token_layers * 1152 + (10 * 3 + 1) * 128


def test_costs_add_up():
    one = group_cost(SHAPE, 10, [2], [4])

    assert (one + one).flops == 2 * one.flops
    assert sum([one], Cost()) == one


@pytest.mark.parametrize("family", CONFIGS)
def test_linear_flops_are_those_of_the_layer(family):
    from tests.engine.models import tiny_model

    model = tiny_model(CONFIGS[family])
    layer = model.model.layers[0]
    hidden = torch.zeros(1, 11, model.config.hidden_size)
    with FlopCounterMode(display=False) as counter:
        rotary = model.model.rotary_emb(hidden, position_ids=torch.arange(11)[None])
        layer(hidden, attention_mask=None, position_embeddings=rotary)

    linear = sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "attention" not in str(op))
    assert linear == 11 * ModelShape.of(model.config).layer_flops
