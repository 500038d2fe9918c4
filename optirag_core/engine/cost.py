"""What scoring costs: useful FLOPs from lengths and exit layers alone.

Per layer and token 2 (2 d q + 2 d k + 3 d f) FLOPs for the projections of queries and output (width q), keys and
values (width k) and the MLP; with as many key heads as query heads that is 2 (4 d^2 + 3 d f). Attention: 2 q P^2 for a
prefix, 4 q S (P + S / 2) for a suffix. In its exit layer a suffix needs keys and values, and its last token only.

Shapes: n suffixes of a packed group, P prefix tokens, S suffix tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

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


def group_cost(
    shape: ModelShape,
    prefix: int,
    suffixes: Sequence[int],
    exit_layers: Sequence[int],
    *,
    frozen_prefix_after: int | None = None,
) -> Cost:
    """The cost of one packed group.

    Args:
        prefix: P.
        suffixes: [n] S of each.
        exit_layers: [n] 1-based; the number of layers for a pair that did not exit.
    """
    deepest = max(exit_layers)
    above = 0 if frozen_prefix_after is None else max(0, deepest - 1 - frozen_prefix_after)
    whole = deepest - 1 - above  # layers that the prefix goes through
    token_layers = prefix * whole
    key_value_tokens = prefix * (above + 1)
    attention = 2 * shape.query_width * prefix**2 * whole
    for tokens, layer in zip(suffixes, exit_layers, strict=True):
        token_layers += tokens * (layer - 1) + 1
        key_value_tokens += tokens - 1
        attention += 4 * shape.query_width * (tokens * (prefix + tokens / 2) * (layer - 1) + prefix + tokens)
    linear = shape.layer_flops * token_layers + shape.key_value_flops * key_value_tokens
    return Cost(
        linear_flops=linear,
        attention_flops=attention,
        token_layers=token_layers,
        frozen_token_layers=prefix * above,
        prefixes=1,
        prefix_layers=deepest,
    )
