"""Heads that read p(yes) from a hidden state: the LM's own at full depth, one copy per exit layer (paper section 5.2).

A head is (final norm, LM head) restricted to the rows of the two answer words: 2 x D numbers instead of vocabulary x D,
and exactly the same ratio, because p_yes / p_no = exp(z_yes - z_no) whatever the other rows are.

Shapes: D model width, ... any leading dimensions.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from optirag_core.errors import ArtifactMismatch, ModelError

HEADS_FILE = "heads.safetensors"


class AnswerHead(nn.Module):
    """Hidden state -> (z_yes, z_no), in fp32."""

    def __init__(self, norm: nn.Module, weight: Tensor) -> None:
        """
        Args:
            norm: the LM's final norm; copied.
            weight: [2, D] rows of the LM head, yes first; copied.
        """
        super().__init__()
        self.norm = copy.deepcopy(norm).float()
        self.weight = nn.Parameter(weight.detach().clone().float())

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., 2] logits of yes and no."""
        # Not a matrix product: for two columns its last bits depend on the number of rows.
        return (self.norm(hidden.float()).unsqueeze(-2) * self.weight).sum(-1)


class ExitHeads(nn.Module):
    """One `AnswerHead` per exit layer."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], answer_ids: tuple[int, int]) -> None:
        """Copies of the LM's own head (algorithm 2, line 1).

        Args:
            layers: 1-based exit layers.
            answer_ids: vocabulary ids of yes and no.

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
        self.heads = nn.ModuleDict({str(layer): lm_answer_head(model, answer_ids) for layer in layers})

    def __getitem__(self, layer: int) -> AnswerHead:
        return self.heads[str(layer)]

    def save(self, folder: Path) -> None:
        save_file(self.state_dict(), folder / HEADS_FILE)

    def load(self, folder: Path) -> None:
        """Read weights saved for the same LLM and layers.

        Raises:
            ArtifactMismatch: the file holds other layers or another width.
        """
        try:
            self.load_state_dict(load_file(folder / HEADS_FILE))
        except RuntimeError as error:
            raise ArtifactMismatch(
                f"{folder / HEADS_FILE} does not fit this LLM and exit_heads.layers: {error}"
            ) from None


def lm_answer_head(model: PreTrainedModel, answer_ids: tuple[int, int]) -> AnswerHead:
    """The LM's own head, restricted to the answer words."""
    head = AnswerHead(model.model.norm, model.lm_head.weight[list(answer_ids)])
    return head.to(model.device).requires_grad_(False)


def p_yes(logits: Tensor) -> Tensor:
    """[..., 2] logits of yes and no -> [...] p(yes) = sigmoid(z_yes - z_no) (paper section 3)."""
    return torch.sigmoid(logits[..., 0] - logits[..., 1])
