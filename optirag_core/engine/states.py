"""Hidden states of the candidates' last tokens: all that any head reads of the LLM.

Shapes: R pairs, K layers, D model width, m window.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from optirag_core.engine.cost import ModelShape
from optirag_core.engine.layout import Pair, PromptPart
from optirag_core.errors import ConfigError


@dataclass(frozen=True)
class LastStates:
    """Of one pass; pairs in the order of the groups and of their suffixes."""

    states: Tensor  # [R, K, D] h^(l), fp32 on the CPU
    layers: tuple[int, ...]  # K, 1-based and ascending; 0 are the embeddings
    sizes: tuple[int, ...]  # pairs of each user group
    parts: Tensor  # [R] the packed group of each pair, numbered from 0
    prefix_tokens: Tensor  # [R]
    suffix_tokens: Tensor  # [R]
    shape: ModelShape
    frozen_prefix_after: int | None

    @classmethod
    def of(
        cls, parts: Sequence[PromptPart], states: Tensor,
        *, layers: tuple[int, ...], sizes: tuple[int, ...], shape: ModelShape, frozen_prefix_after: int | None,
    ) -> Self:  # fmt: skip
        """Of states [R, K, D] in the order of the pairs."""
        pairs = [Pair(part.user_group, candidate) for part in parts for candidate in part.candidates]
        order = torch.tensor(sorted(range(len(pairs)), key=pairs.__getitem__), dtype=torch.int64)  # [R]

        def column(values: Iterable[int]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.int64)[order]

        return cls(
            states=states,
            layers=layers,
            sizes=sizes,
            parts=column(number for number, part in enumerate(parts) for _ in part.suffixes),
            prefix_tokens=column(len(part.prefix) for part in parts for _ in part.suffixes),
            suffix_tokens=column(len(suffix) for part in parts for suffix in part.suffixes),
            shape=shape,
            frozen_prefix_after=frozen_prefix_after,
        )

    def at(self, layers: Iterable[int]) -> Tensor:
        """[R, some layers, D].

        Raises:
            ConfigError: one of them was not kept.
        """
        layers = list(layers)
        if missing := sorted(set(layers) - set(self.layers)):
            raise ConfigError(
                f"hidden states of layers {missing} were not kept, only of {list(self.layers)}: run exit_features "
                "again with the exit layers and the window in use"
            )
        return self.states[:, [self.layers.index(layer) for layer in layers]]


def window_layers(exit_layers: Sequence[int], window: int, num_layers: int) -> tuple[int, ...]:
    """The layers of which a trace reads states: l-m ... l of every exit layer l, and the LLM's last.

    Raises:
        ConfigError: a window reaches below the embeddings.
    """
    if min(exit_layers) < window:
        raise ConfigError(
            f"exit_policy.window {window} reads {window} layers back: the first exit layer must be >= {window}, "
            f"got {min(exit_layers)}"
        )
    read = {layer - back for layer in exit_layers for back in range(window + 1)}
    return tuple(sorted({*read, num_layers}))
