"""The cost model against numbers computed by hand and against what torch counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from optirag_core.engine.cost import Cost, ModelShape, packed_cost
from tests.engine.models import CONFIGS
from tests.reference import group_cost

SHAPE = ModelShape(num_layers=4, width=8, mlp_width=16, query_width=8, key_width=4)
#  keys and values 4*8*4 = 128; queries and output 4*8*8 = 256; MLP 6*8*16 = 768; a layer 1152 per token


def one_group(shape, prefix, suffixes, exit_layers, **frozen) -> Cost:
    pairs = [torch.tensor(column) for column in ([0] * len(suffixes), [prefix] * len(suffixes), suffixes, exit_layers)]
    return packed_cost(shape, *pairs, **frozen)


def test_flops_per_token():
    assert SHAPE.key_value_flops == 128
    assert SHAPE.layer_flops == 1152
    with_all_heads = ModelShape(4, 8, 16, 8, 8)
    assert with_all_heads.layer_flops == 2 * (4 * 8**2 + 3 * 8 * 16)


def test_full_depth():
    cost = one_group(SHAPE, prefix=10, suffixes=[2, 4], exit_layers=[4, 4])

    # 3 whole layers of 16 tokens, then keys and values of 16 tokens and the 2 last tokens
    assert cost.token_layers == 3 * 16 + 2
    assert cost.linear_flops == (3 * 16 + 2) * 1152 + 14 * 128
    prefix = 3 * 2 * 8 * 100
    suffixes = 4 * 8 * (3 * (2 * 11 + 4 * 12) + 12 + 14)
    assert cost.attention_flops == prefix + suffixes
    assert (cost.prefixes, cost.prefix_layers, cost.frozen_token_layers) == (1, 4, 0)


def test_exits_end_suffixes_and_the_deepest_ends_the_prefix():
    cost = one_group(SHAPE, prefix=10, suffixes=[2, 4], exit_layers=[2, 3])

    assert cost.token_layers == 10 * 2 + 2 * 1 + 1 + 4 * 2 + 1
    assert cost.linear_flops == cost.token_layers * 1152 + (10 + 1 + 3) * 128
    assert cost.attention_flops == 2 * 2 * 8 * 100 + 4 * 8 * (2 * 11 * 1 + 12 + 4 * 12 * 2 + 14)
    assert cost.prefix_layers == 3


def test_a_frozen_prefix_gives_keys_and_values_only():
    cost = one_group(SHAPE, prefix=10, suffixes=[2], exit_layers=[4], frozen_prefix_after=1)

    assert cost.token_layers == 10 * 1 + 2 * 3 + 1
    assert cost.frozen_token_layers == 10 * 2
    assert cost.linear_flops == cost.token_layers * 1152 + (10 * 3 + 1) * 128


def test_pairs_that_stop_at_depth_0_cost_nothing():
    cost = one_group(SHAPE, prefix=10, suffixes=[2, 4, 3], exit_layers=[0, 3, 0])

    assert cost == one_group(SHAPE, prefix=10, suffixes=[4], exit_layers=[3])
    assert one_group(SHAPE, prefix=10, suffixes=[2, 4], exit_layers=[0, 0]) == Cost()
    assert one_group(SHAPE, prefix=10, suffixes=[], exit_layers=[]) == Cost()


@examples(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)))), max_size=5),
    st.sampled_from([None, 1, 2, 3, 4]),
    st.randoms(use_true_random=False),
)
def test_many_groups_cost_what_they_cost_one_by_one(groups, frozen_after, random):
    expected = Cost()
    pairs = []
    for number, (prefix, suffixes) in enumerate(groups):
        pairs += [(number, prefix, tokens, layer) for tokens, layer in suffixes]
        tokens, layers = [tokens for tokens, _ in suffixes], [layer for _, layer in suffixes]
        expected += group_cost(SHAPE, prefix, tokens, layers, frozen_prefix_after=frozen_after)
    random.shuffle(pairs)
    columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4).unbind(dim=1)

    assert packed_cost(SHAPE, *columns, frozen_prefix_after=frozen_after) == expected


def test_costs_add_up():
    one = one_group(SHAPE, prefix=10, suffixes=[2], exit_layers=[4])

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
