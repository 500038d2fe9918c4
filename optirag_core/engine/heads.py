"""Heads that read p(yes) from a hidden state: the LM's own at full depth, one copy per exit layer (paper section 5.2).

A head is (final norm, LM head) restricted to the rows of the two answer words: 2 x D numbers instead of vocabulary x D,
and exactly the same ratio, because p_yes / p_no = exp(z_yes - z_no) whatever the other rows are. It may read what is
known of the pair beside its prompt as well, which the paper's does not: z_yes = w . norm(h) + v . c + b.

Shapes: D model width, F features of evidence, ... any leading dimensions.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from optirag_core.engine.groups import UserGroup
from optirag_core.errors import ArtifactMismatch, ModelError

HEADS_FILE = "heads.safetensors"


class EvidenceHead(nn.Module):
    """Evidence c -> (z_yes, z_no) = (v . c + b, 0), in fp32; zeros before training."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_features), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, evidence: Tensor) -> Tensor:
        """[..., F] -> [..., 2] logits of yes and no."""
        # Not a matrix product, as in AnswerHead; contiguous, because sums over other strides have other last bits.
        yes = (evidence.to(self.weight).contiguous() * self.weight).sum(-1) + self.bias
        return torch.stack([yes, torch.zeros_like(yes)], dim=-1)


class AnswerHead(nn.Module):
    """Hidden state, and evidence where the head reads it -> (z_yes, z_no), in fp32."""

    def __init__(self, norm: nn.Module, weight: Tensor, num_features: int = 0) -> None:
        """
        Args:
            norm: the LM's final norm; copied.
            weight: [2, D] rows of the LM head, yes first; copied.
            num_features: F; 0 for a head that reads the hidden state alone.
        """
        super().__init__()
        self.norm = copy.deepcopy(norm).float()
        self.weight = nn.Parameter(weight.detach().clone().float())
        self.evidence = EvidenceHead(num_features) if num_features else None

    def forward(self, hidden: Tensor, evidence: Tensor | None = None) -> Tensor:
        """[..., D] -> [..., 2] logits of yes and no; evidence [R, F] is of all states [R, ..., D] of a pair."""
        # Not a matrix product: for two columns its last bits depend on the number of rows.
        logits = (self.norm(hidden.float()).unsqueeze(-2) * self.weight).sum(-1)
        if self.evidence is None:
            return logits
        known = self.evidence(evidence)  # [R, 2]
        return logits + known.view(*known.shape[:-1], *[1] * (logits.dim() - known.dim()), 2)


class ExitHeads(nn.Module):
    """An `AnswerHead` per exit layer, the LM's own at layer N, and with evidence an `EvidenceHead` at depth 0."""

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[int], answer_ids: tuple[int, int], num_features: int = 0
    ) -> None:
        """Copies of the LM's own head (algorithm 2, line 1).

        Args:
            layers: 1-based exit layers.
            answer_ids: vocabulary ids of yes and no.
            num_features: F, of the evidence that all heads read; 0 for the paper's heads, and none at depth 0.

        Raises:
            ModelError: an exit layer lies at or beyond the LM's last layer.
        """
        super().__init__()
        num_layers = model.config.num_hidden_layers
        if max(layers) >= num_layers:
            raise ModelError(
                f"exit_heads.layers {list(layers)} reach layer {max(layers)}, but the LLM has {num_layers} layers and "
                f"its own head at layer {num_layers}: set exit_heads.layers below {num_layers}"
            )
        self.layers = tuple(layers)
        self.num_layers = num_layers
        self.num_features = num_features
        self.heads = nn.ModuleDict(
            {str(layer): lm_answer_head(model, answer_ids, num_features) for layer in (*layers, num_layers)}
        )
        if num_features:
            self.heads["0"] = EvidenceHead(num_features).to(model.device)

    def __getitem__(self, layer: int) -> AnswerHead:
        """The head at an exit layer, or the LM's own at layer N."""
        return cast("AnswerHead", self.heads[str(layer)])

    def on_evidence(self, layer: int) -> EvidenceHead:
        """What the head at a layer makes of the evidence, which it must read; at depth 0 there is nothing else."""
        return cast("EvidenceHead", self.heads["0"] if layer == 0 else self[layer].evidence)

    @property
    def only_evidence(self) -> bool:
        """Whether full depth says of every pair what depth 0 says: its head gives the hidden state no weight."""
        if not self.num_features:
            return False
        last, alone = self.on_evidence(self.num_layers), self.on_evidence(0)
        same = torch.equal(last.weight, alone.weight) and torch.equal(last.bias, alone.bias)
        return same and not self[self.num_layers].weight.any()

    @torch.no_grad()
    def start_from_evidence(self, weights: Tensor, bias: float) -> None:
        """Put the regression on every head; training finds its weight beside the copy.

        Args:
            weights, bias: v [F] and b of a logistic regression on the evidence alone.
        """
        for layer in map(int, self.heads):
            head = self.on_evidence(layer)
            head.weight.copy_(weights)
            head.bias.fill_(bias)

    def save(self, folder: Path) -> None:
        save_file(self.state_dict(), folder / HEADS_FILE)

    def load(self, folder: Path) -> None:
        """Read weights saved for the same LLM, layers and evidence.

        Raises:
            ArtifactMismatch: the file holds other layers, another width, or another number of features.
        """
        try:
            self.load_state_dict(load_file(folder / HEADS_FILE))
        except RuntimeError as error:
            raise ArtifactMismatch(
                f"{folder / HEADS_FILE} does not fit this LLM, exit_heads.layers and {self.num_features} features of "
                f"evidence: {error}"
            ) from None


def lm_answer_head(model: PreTrainedModel, answer_ids: tuple[int, int], num_features: int = 0) -> AnswerHead:
    """The LM's own head, restricted to the answer words."""
    head = AnswerHead(model.model.norm, model.lm_head.weight[list(answer_ids)], num_features)
    return head.to(model.device).requires_grad_(False)


def p_yes(logits: Tensor) -> Tensor:
    """[..., 2] logits of yes and no -> [...] p(yes) = sigmoid(z_yes - z_no) (paper section 3)."""
    return torch.sigmoid(logits[..., 0] - logits[..., 1])


def evidence_of(group: UserGroup, num_features: int) -> Tensor | None:
    """What the heads read of a group's evidence: [n, F]; None for heads that read none.

    Raises:
        ModelError: evidence is missing, of another width, or no number.
    """
    if not num_features:
        return None
    rows = group.evidence if group.evidence is not None else []
    widths = {len(row) for row in rows} - {num_features}
    if len(rows) != len(group.suffixes) or widths:
        came = f"{len(rows)} rows of evidence" + (f" of {min(widths)} features" if widths else "")
        raise ModelError(
            f"a group of {len(group.suffixes)} candidates came with {came}, and the heads read {num_features} features "
            "of each: build the prompts with the evidence that the heads were trained on, or use heads without"
        )
    evidence = torch.tensor(rows, dtype=torch.float32).reshape(-1, num_features)  # a list of no rows has one dimension
    if not evidence.isfinite().all():
        raise ModelError("a group's evidence holds a value that is no finite number: make the evidence again")
    return evidence
