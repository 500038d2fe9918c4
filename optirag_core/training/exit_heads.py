"""Training of the exit heads on the frozen LLM (paper section 5.2).

The LLM does not change, so its hidden states are computed once and the heads are trained on them: a logistic problem
per exit layer.

Shapes: A answers, D model width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from optirag_core.config import ExitHeadsSettings
from optirag_core.engine.heads import ExitHeads
from optirag_core.errors import DataError
from optirag_core.training.packing import PackedBatch, Sample, pack, plan_batches

Features = Mapping[int, Tensor]
"""Exit layer -> [A, D] hidden states h^(l) of the answers' last tokens."""


@torch.no_grad()  # tensors of inference_mode could not be trained on
def exit_features(
    model: PreTrainedModel, samples: Sequence[Sample], layers: Sequence[int], *, batch_tokens: int
) -> tuple[Features, Tensor]:
    """Run the frozen LLM once.

    Returns:
        Hidden states per exit layer and the labels [A], both in the same order.
    """
    lengths = [sample.num_tokens for sample in samples]
    states = {layer: [torch.empty(0, model.config.hidden_size)] for layer in layers}  # so that no sample is 0 rows
    labels = [torch.empty(0)]
    for indices in plan_batches(lengths, batch_tokens, torch.Generator().manual_seed(0)):
        batch = pack([samples[index] for index in indices])
        for layer, answers in _answer_states(model, batch, layers).items():
            states[layer].append(answers.float().cpu())
        labels.append(batch.labels)
    return {layer: torch.cat(parts) for layer, parts in states.items()}, torch.cat(labels)


def train_exit_heads(
    heads: ExitHeads,
    features: Features,
    labels: Tensor,
    settings: ExitHeadsSettings,
    *,
    seed: int,
    validation: tuple[Features, Tensor] | None = None,
    world_size: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise the answers' cross-entropy of every head, with lambda_l = lambda_0 * exp(-beta * depth_l).

    depth_l is the head's index from shallow to deep.

    Args:
        features, labels: this worker's share; all workers use as many as the smallest share has.
        validation: features and labels on which each head's best epoch is chosen, the plain copy being epoch 0; the
            same for all workers. Without it the last epoch stays.
        on_epoch: called after each epoch with its number, from 1, and the last step's loss summed over the heads.

    Raises:
        DataError: there is no answer to learn from.
    """
    num_answers = torch.tensor(len(labels))
    if world_size > 1:
        dist.all_reduce(num_answers, dist.ReduceOp.MIN)
    if not num_answers:
        raise DataError("no training sample for the exit heads: raise dataset.split.tune_share")
    rates = [settings.learning_rate * math.exp(-settings.decay * depth) for depth in range(len(heads.layers))]
    groups = [
        {"params": list(heads[layer].parameters()), "lr": rate} for layer, rate in zip(heads.layers, rates, strict=True)
    ]
    optimizer = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(seed)
    heads.requires_grad_(True).train()
    best = _Best(heads, validation)
    for epoch in range(1, settings.epochs + 1):
        for rows in torch.randperm(int(num_answers), generator=generator).split(settings.batch_size):
            loss = sum(head_losses(heads, {layer: states[rows] for layer, states in features.items()}, labels[rows]))
            loss.backward()
            if world_size > 1:
                for parameter in (parameter for group in groups for parameter in group["params"]):
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= world_size
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        best.offer()
        if on_epoch:
            on_epoch(epoch, loss.item())
    best.restore()
    heads.requires_grad_(False).eval()


class _Best:
    """Each head's weights of its best epoch, the plain copy being the first offer."""

    def __init__(self, heads: ExitHeads, validation: tuple[Features, Tensor] | None) -> None:
        self._heads = heads
        self._validation = validation if validation and len(validation[1]) else None
        self._losses = dict.fromkeys(heads.layers, math.inf)
        self._weights: dict[int, dict[str, Tensor]] = {}
        self.offer()

    @torch.no_grad()
    def offer(self) -> None:
        if self._validation is None:
            return
        for layer, loss in zip(self._heads.layers, head_losses(self._heads, *self._validation), strict=True):
            if loss < self._losses[layer]:
                self._losses[layer] = loss.item()
                self._weights[layer] = {name: w.clone() for name, w in self._heads[layer].state_dict().items()}

    def restore(self) -> None:
        for layer, weights in self._weights.items():
            self._heads[layer].load_state_dict(weights)


def head_losses(heads: ExitHeads, features: Features, labels: Tensor) -> list[Tensor]:
    """L_exit^(l) = -log p^(l)(answer) of each head, shallow to deep, averaged over the answers."""
    losses = []
    for layer in heads.layers:
        logits = heads[layer](features[layer].to(heads[layer].weight.device))  # [A, 2]
        difference = logits[:, 0] - logits[:, 1]
        losses.append(functional.binary_cross_entropy_with_logits(difference, labels.to(difference.device)))
    return losses


def _answer_states(model: PreTrainedModel, batch: PackedBatch, layers: Sequence[int]) -> dict[int, Tensor]:
    caught: dict[int, Tensor] = {}

    def catch(layer: int):
        def hook(_module, _arguments, output) -> None:
            hidden = output[0] if isinstance(output, tuple) else output  # [B, T, D]
            caught[layer] = hidden[batch.answer_rows, batch.answer_columns]

        return hook

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(model.model.layers[layer - 1].register_forward_hook(catch(layer)).remove)
        model.model(
            input_ids=batch.ids.to(model.device),
            attention_mask=batch.mask.to(model.device),
            position_ids=batch.positions.to(model.device),
            use_cache=False,
        )
    return caught
