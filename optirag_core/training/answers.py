"""The LLM's answers: their loss, which is what scoring reads, and their scores (paper sections 3 and 5.2).

The loss is the cross-entropy of the answer word among the two answer words. A model may also predict each shown rating
from what precedes it: the same forward, many more targets.

Shapes: B rows, T padded tokens, D model width, V vocabulary, A answers, R shown ratings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from optirag_core.training.packing import PackedBatch, Sample, pack, plan_batches
from optirag_core.training.workers import Workers


class AnswerLoss(nn.Module):
    """The LLM as far as its loss needs it, in one forward: the root for what spreads its weights over workers."""

    def __init__(self, llm: PreTrainedModel, answer_ids: tuple[int, int], dtype: torch.dtype | None = None) -> None:
        """
        Args:
            answer_ids: vocabulary ids of yes and no.
            dtype: to compute the layers in, whatever the weights are in; default: the weights' own.
        """
        super().__init__()
        self.llm, self.answer_ids, self.dtype = llm, list(answer_ids), dtype

    def forward(self, batch: PackedBatch, *, ratings: bool) -> tuple[Tensor, Tensor]:
        """
        Args:
            ratings: whether the shown ratings are predicted too.

        Returns:
            z_yes - z_no of each answer [A]; the cross-entropy of the shown ratings, summed.
        """
        batch = batch.to(self.llm.device)
        with torch.autocast(self.llm.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            hidden = self.llm.model(
                input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
            ).last_hidden_state  # [B, T, D]
            before = hidden[batch.rating_rows, batch.rating_columns - 1] if ratings else hidden[0, :0]  # [R, D]
            words = self.llm.lm_head(before)  # [R, V]
        yes, no = self.llm.lm_head.weight[self.answer_ids].float()  # [D] each
        logits = hidden[batch.answer_rows, batch.answer_columns].float() @ (yes - no)  # [A]
        targets = batch.ids[batch.rating_rows, batch.rating_columns][: len(words)]  # [R]
        return logits, functional.cross_entropy(words.float(), targets, reduction="sum")


def answer_loss(
    module: nn.Module, batch: Sequence[Sample], *, rating_weight: float = 0.0, workers: Workers = Workers()
) -> Tensor:
    """This worker's part of a batch's loss: the answers' mean, plus the weighted mean of the shown ratings'.

    Args:
        module: an `AnswerLoss`, as `parallelize` returned it.
        batch: of all workers.
    """
    mine, counts = workers.share(batch)
    packed = pack(mine)
    logits, ratings = module(packed, ratings=rating_weight > 0.0)
    labels = packed.labels.to(logits.device)
    answers = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    num_answers = sum(len(sample.labels) for sample in batch)
    num_ratings = max(1, sum(len(sample.rating_positions) for sample in batch))
    return counts * (answers / num_answers + rating_weight * ratings / num_ratings)


def mean_answer_loss(
    module: nn.Module, samples: Sequence[Sample], *, batch_tokens: int, workers: Workers = Workers()
) -> float:
    """Mean cross-entropy of the answers, of which each worker computes its share.

    Args:
        module: as for `answer_loss`; it is in evaluation mode afterwards.
    """
    module.eval()
    total = torch.zeros((), dtype=torch.float64)
    for indices in _batches(samples, batch_tokens):
        mine, counts = workers.share([samples[index] for index in indices])
        labels = torch.tensor([float(label) for sample in mine for label in sample.labels])
        losses = functional.binary_cross_entropy_with_logits(_logits(module, mine), labels, reduction="none")
        total += counts * losses.double().sum()
    return workers.sum(total).item() / sum(len(sample.labels) for sample in samples)


def answer_scores(
    model: PreTrainedModel, samples: Sequence[Sample], answer_ids: tuple[int, int], *, batch_tokens: int
) -> list[float]:
    """p(yes) of every candidate of every sample, in order, at full depth."""
    module = AnswerLoss(model, answer_ids)
    found: dict[int, list[float]] = {}
    for indices in _batches(samples, batch_tokens):
        scores = iter(_logits(module, [samples[index] for index in indices]).sigmoid().tolist())
        found |= {index: [next(scores) for _ in samples[index].labels] for index in indices}
    return [score for index in range(len(samples)) for score in found[index]]


@torch.no_grad()
def _logits(module: nn.Module, samples: Sequence[Sample]) -> Tensor:
    """z_yes - z_no of the samples' answers, on the CPU [A]."""
    return module(pack(samples), ratings=False)[0].cpu()


def _batches(samples: Sequence[Sample], batch_tokens: int) -> list[list[int]]:
    """Indices of each batch, the same for all workers."""
    lengths = [sample.num_tokens for sample in samples]
    return plan_batches(lengths, batch_tokens, torch.Generator().manual_seed(0))
