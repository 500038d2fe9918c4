"""Every head's view of every pair at full depth, and any exit policy replayed on it without the LLM.

Shapes: R pairs, L exit layers, m window.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from optirag_core.engine.cost import Cost, ModelShape, packed_cost
from optirag_core.engine.heads import AnswerHead, ExitHeads
from optirag_core.engine.policy import ExitPolicy, exits_at
from optirag_core.engine.states import LastStates
from optirag_core.errors import ConfigError


@dataclass(frozen=True)
class Trace:
    """One full-depth pass; pairs in the order of the groups and of their suffixes."""

    shape: ModelShape
    layers: tuple[int, ...]  # L, 1-based
    frozen_prefix_after: int | None
    sizes: tuple[int, ...]  # pairs of each user group
    parts: Tensor  # [R] the packed group of each pair
    prefix_tokens: Tensor  # [R]
    suffix_tokens: Tensor  # [R]
    logits: Tensor  # [R, L, m+1, 2] of each exit head on its window, yes first
    final_logits: Tensor  # [R, 2] of the LLM's own head
    evidence_logits: Tensor | None  # [R, 2] of the head at depth 0, where there is one
    evidence_added: Tensor | None = None  # [R, L+1] what the evidence adds to each head's log-odds, the LLM's own last

    @classmethod
    @torch.no_grad()
    def of_states(cls, states: LastStates, heads: ExitHeads, evidence: Tensor | None, *, window: int) -> Self:
        """What these heads make of hidden states.

        Args:
            evidence: [R, F], where the heads read any.
            window: m.

        Raises:
            ConfigError: states of a layer that the heads read were not kept.
        """

        def view(head: AnswerHead, layers: Iterable[int]) -> Tensor:
            """[R, layers, 2]."""
            return head(states.at(layers).to(head.weight.device), evidence).cpu()

        views = [view(heads[layer], range(layer - window, layer + 1)) for layer in heads.layers]
        return cls(
            shape=states.shape,
            layers=heads.layers,
            frozen_prefix_after=states.frozen_prefix_after,
            sizes=states.sizes,
            parts=states.parts,
            prefix_tokens=states.prefix_tokens,
            suffix_tokens=states.suffix_tokens,
            logits=torch.stack(views, dim=1),
            final_logits=view(heads[states.shape.num_layers], [states.shape.num_layers])[:, 0],
            evidence_logits=heads.on_evidence(0)(evidence).cpu() if heads.num_features else None,
            evidence_added=_added(heads, evidence) if evidence is not None else None,
        )

    @property
    def user_groups(self) -> Tensor:
        """[R] the user group of each pair."""
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes, dtype=torch.int64))

    def of_pairs(self, chosen: Tensor) -> Self:
        """The trace of some pairs.

        Args:
            chosen: [R] bool; the pairs of a user group stay or go together.
        """
        kept: dict[str, Any] = {name: value[chosen] for name, value in vars(self).items() if isinstance(value, Tensor)}
        kept["parts"] = kept["parts"].unique(return_inverse=True)[1]  # numbered from 0 again
        sizes = self.user_groups[chosen].bincount(minlength=len(self.sizes))
        return replace(self, sizes=tuple(sizes[sizes > 0].tolist()), **kept)

    def outcome(self, policy: ExitPolicy, layers: Sequence[int] | None = None) -> "Outcome":
        """Run a policy on the trace.

        Args:
            layers: the exit layers in use; default all traced ones.

        Raises:
            ConfigError: the trace cannot tell: a wider window, other layers, another frozen prefix than traced, or
                evidence that its heads do not read.
        """
        layers = self.layers if layers is None else layers
        _check(self, policy, layers)
        user_groups = self.user_groups  # [R]
        exit_layers = torch.full_like(user_groups, self.shape.num_layers)  # [R]
        logits = self.final_logits.clone()  # [R, 2] where the pair stops
        was_forced = torch.zeros(len(exit_layers), dtype=torch.bool)
        alive = torch.arange(len(exit_layers))  # index of the live pairs
        heads = [
            (layer, views, policy)
            for layer, views in zip(self.layers, self.logits.unbind(dim=1), strict=True)
            if layer in layers
        ]
        if (at_depth_0 := policy.at_depth_0) is not None:
            assert self.evidence_logits is not None, "`_check` has refused it"
            heads = [(0, self.evidence_logits[:, None], at_depth_0), *heads]
        for layer, views, asked in heads:
            seen = views[alive, -policy.window - 1 :]  # [R', m+1, 2]
            stops, forced = exits_at(seen, user_groups[alive], asked)
            stopped = alive[stops]
            exit_layers[stopped], logits[stopped], was_forced[stopped] = layer, seen[stops, -1], forced[stops]
            alive = alive[~stops]
        cost = packed_cost(
            self.shape, self.parts, self.prefix_tokens, self.suffix_tokens, exit_layers,
            frozen_prefix_after=self.frozen_prefix_after,
        )  # fmt: skip
        return Outcome(exit_layers, logits, was_forced, cost)


@dataclass(frozen=True)
class Outcome:
    """What a live run with a policy returns for each pair, in the trace's order, and its cost."""

    exit_layers: Tensor  # [R] 1-based; 0 is the evidence alone, the last full depth
    logits: Tensor  # [R, 2] of the head that stopped the pair
    forced: Tensor  # [R] bool
    cost: Cost


def _added(heads: ExitHeads, evidence: Tensor) -> Tensor:
    """[R, F] -> [R, L+1]."""
    layers = (*heads.layers, heads.num_layers)
    return torch.stack([heads.on_evidence(layer)(evidence)[:, 0] for layer in layers], dim=1).cpu()


def _check(trace: Trace, policy: ExitPolicy, layers: Sequence[int]) -> None:
    traced = trace.logits.size(2) - 1
    if policy.window > traced:
        raise ConfigError(
            f"exit_policy.window {policy.window} is wider than the traced {traced}: trace with that window"
        )
    if unknown := set(layers) - set(trace.layers):
        raise ConfigError(f"exit layers {sorted(unknown)} were not traced, only {list(trace.layers)}: trace them")
    if policy.evidence_confidence is not None and trace.evidence_logits is None:
        raise ConfigError(
            f"exit_policy.evidence_confidence {policy.evidence_confidence} asks the head at depth 0, and the traced "
            "heads read no evidence: trace heads that do, or set it to null"
        )
    if policy.frozen_prefix_after != trace.frozen_prefix_after:
        raise ConfigError(
            f"exit_policy.frozen_prefix_after {policy.frozen_prefix_after} changes hidden states, and the trace was "
            f"made with {trace.frozen_prefix_after}: trace with that setting"
        )
