"""What scoring costs: useful FLOPs from lengths and exit layers alone.

Per layer and token 2 (2 d q + 2 d k + 3 d f) FLOPs for the projections of queries and output (width q), keys and
values (width k) and the MLP; with as many key heads as query heads that is 2 (4 d^2 + 3 d f). Attention: 2 q P^2 for a
prefix, 4 q S (P + S / 2) for a suffix. In its exit layer a suffix needs keys and values, and its last token only.

Shapes: R pairs of C packed groups, P prefix tokens, S suffix tokens.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedConfig


@dataclass(frozen=True)
class ModelShape:
    """The widths that FLOPs and bytes depend on."""

    num_layers: int
    width: int  # d
    mlp_width: int  # f
    query_width: int  # heads x head width
    key_width: int  # key heads x head width

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Self:
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(
            num_layers=config.num_hidden_layers,
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            query_width=heads * head_width,
            key_width=key_heads * head_width,
        )

    @property
    def key_value_flops(self) -> int:
        """Of one token in one layer."""
        return 4 * self.width * self.key_width

    @property
    def layer_flops(self) -> int:
        """Of one token in one layer, without attention."""
        return self.key_value_flops + 4 * self.width * self.query_width + 6 * self.width * self.mlp_width


@dataclass(frozen=True)
class Cost:
    """Of packed groups; addable."""

    linear_flops: float = 0.0
    attention_flops: float = 0.0
    token_layers: int = 0  # tokens that went through a layer's queries and MLP, summed over layers
    frozen_token_layers: int = 0  # prefix tokens that gave keys and values only, above a frozen prefix
    prefixes: int = 0
    prefix_layers: int = 0  # layers that a prefix took part in, summed over prefixes

    @property
    def flops(self) -> float:
        return self.linear_flops + self.attention_flops

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


def packed_cost(
    shape: ModelShape, parts: Tensor, prefix: Tensor, suffix: Tensor, exit_layers: Tensor,
    *, frozen_prefix_after: int | None = None,
) -> Cost:  # fmt: skip
    """The cost of packed groups, without a loop over them.

    Args:
        parts: [R] the packed group of each pair, numbered from 0.
        prefix, suffix: [R] P of its group and S.
        exit_layers: [R] 1-based; the number of layers for a pair that did not exit, 0 for one that was not run.
    """
    ran = exit_layers > 0
    if not ran.any():
        return Cost()
    parts, prefix, suffix, layers = (column[ran] for column in (parts, prefix, suffix, exit_layers))
    deepest = torch.zeros(int(parts.max()) + 1, dtype=torch.int64).scatter_reduce(0, parts, layers, "amax")  # [C]
    prefix_of = torch.zeros_like(deepest).scatter_(0, parts, prefix)  # [C]
    deepest, prefix_of = deepest[deepest > 0], prefix_of[deepest > 0]
    frozen_after = shape.num_layers if frozen_prefix_after is None else frozen_prefix_after
    above = (deepest - 1 - frozen_after).clamp(min=0)
    whole = deepest - 1 - above
    token_layers = int((prefix_of * whole).sum() + (suffix * (layers - 1) + 1).sum())
    key_value_tokens = int((prefix_of * (above + 1)).sum() + (suffix - 1).sum())
    over_prefix_and_own = suffix * (2 * prefix + suffix) * (layers - 1) + 2 * (prefix + suffix)  # twice, to stay whole
    return Cost(
        linear_flops=shape.layer_flops * token_layers + shape.key_value_flops * key_value_tokens,
        attention_flops=2 * shape.query_width * int((prefix_of**2 * whole).sum() + over_prefix_and_own.sum()),
        token_layers=token_layers,
        frozen_token_layers=int((prefix_of * above).sum()),
        prefixes=len(deepest),
        prefix_layers=int(deepest.sum()),
    )
