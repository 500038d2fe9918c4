"""Instruction tuning of the LLM on answer tokens (paper sections 3 and 5.2).

The loss is the cross-entropy of the answer word among the two answer words, exactly what scoring reads. A model from
scratch may also predict each shown rating from what precedes it: the same forward, many more targets.

Shapes: B rows, T padded tokens, D model width, V vocabulary, A answers, R shown ratings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.config.llm import LoraSettings, ShapeSettings, TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.lora import with_lora
from optirag_core.training.packing import PackedBatch, Sample, pack, plan_batches
from optirag_core.training.selection import BestWeights
from optirag_core.training.steps import plan_steps

MAX_GRADIENT_NORM = 1.0
INITIALIZER_RANGE = 0.04
"""Twice the default, which is made for widths of thousands: at width 128 it starts about twice as fast."""


@dataclass(frozen=True)
class Step:
    """Progress of a training: `number` of `total` optimiser steps done."""

    number: int
    total: int
    loss: float
    validation_loss: float | None = None  # where an epoch ends, mean over the validation answers


def llama_from_scratch(
    shape: ShapeSettings, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, seed: int
) -> PreTrainedModel:
    """A randomly initialised Llama for this tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=max_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=INITIALIZER_RANGE,
    )
    return LlamaForCausalLM(config)


def tune_llm(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    answer_ids: tuple[int, int],
    settings: TuningSettings,
    *,
    seed: int,
    lora: LoraSettings | None = None,
    cold_start_samples: Sequence[Sample] = (),
    validation: Sequence[Sample] = (),
    autocast: bool = False,
    rank: int = 0,
    world_size: int = 1,
    on_step: Callable[[Step], None] | None = None,
) -> PreTrainedModel:
    """Tune all weights or a LoRA, which is merged at the end.

    Args:
        answer_ids: vocabulary ids of yes and no.
        lora: of the adapters; None tunes all weights.
        cold_start_samples: the same answers behind prompts without similar users, for `cold_start_epochs` of them
            first: a model from scratch learns to read histories there at a fraction of the tokens.
        validation: where given, the weights of the epoch with the least loss on their answers are kept, or the
            untouched ones where no epoch is better; not those of the last step.
        autocast: compute in bfloat16, whatever the weights are in.
        rank, world_size: data-parallel worker; torch.distributed is initialised when world_size > 1.
        on_step: called after every optimiser step.

    Raises:
        DataError: there is no sample, or fewer batches than one step takes.
        ModelError: the LLM has no layers of the names that `lora` gives.
    """
    if not samples:
        raise DataError("no training sample for the LLM: lower dataset.min_history or raise dataset.split.tune_share")
    plan = plan_steps(cold_start_samples, samples, settings, seed=seed, world_size=world_size)
    adapted = with_lora(model, lora, seed=seed) if lora else None
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = _optimizers(model, settings)
    rates = [step.rate for step in plan]
    schedules = [LambdaLR(each, lambda number: rates[min(number, len(rates) - 1)]) for each in optimizers]

    def validation_loss() -> float:
        with _bfloat16(model, autocast):
            return _mean_loss(model.eval(), validation[rank::world_size], answer_ids, settings.batch_tokens, world_size)

    best = BestWeights(trainable, validation_loss()) if validation else None
    for number, step in enumerate(plan, start=1):
        loss = _accumulate_gradients(model.train(), step.batches[rank], answer_ids, settings, autocast=autocast)
        _take_step(trainable, optimizers, schedules, world_size=world_size)
        validated = validation_loss() if best and step.ends_epoch else None
        if validated is not None:
            best.offer(validated)
        if on_step:
            on_step(Step(number, len(plan), loss, validated))
    if best:
        best.restore()
    tuned = adapted.merge_and_unload() if adapted else model
    return tuned.eval()


def _accumulate_gradients(
    model: PreTrainedModel, batches: Sequence[Sequence[Sample]], answer_ids: tuple[int, int],
    settings: TuningSettings, *, autocast: bool,
) -> float:  # fmt: skip
    """Add the gradients of the batches' mean loss, and return it."""
    losses = []
    for batch in batches:
        with _bfloat16(model, autocast):
            loss = answer_loss(model, pack(batch), answer_ids, settings.history_loss_weight)
        (loss / len(batches)).backward()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _take_step(
    trainable: Sequence[torch.nn.Parameter], optimizers: Sequence[torch.optim.Optimizer],
    schedules: Sequence[LambdaLR], *, world_size: int,
) -> None:  # fmt: skip
    """One step of all workers along their mean gradient, clipped."""
    if world_size > 1:
        _average_gradients(trainable, world_size)
    torch.nn.utils.clip_grad_norm_(trainable, MAX_GRADIENT_NORM)
    for optimizer, schedule in zip(optimizers, schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)


def answer_loss(
    model: PreTrainedModel, batch: PackedBatch, answer_ids: tuple[int, int], history_loss_weight: float
) -> Tensor:
    """Mean cross-entropy of the answers, plus the weighted mean of the shown ratings' cross-entropy."""
    hidden = _hidden_states(model, batch)  # [B, T, D]
    answers = hidden[batch.answer_rows, batch.answer_columns]  # [A, D]
    difference = _answer_logits(model, answers, answer_ids)  # [A]
    loss = functional.binary_cross_entropy_with_logits(difference, batch.labels.to(hidden.device))
    if history_loss_weight and len(batch.rating_rows):
        before = hidden[batch.rating_rows, batch.rating_columns - 1]  # [R, D]
        targets = batch.ids[batch.rating_rows, batch.rating_columns].to(hidden.device)  # [R]
        loss = loss + history_loss_weight * functional.cross_entropy(model.lm_head(before).float(), targets)
    return loss


def answer_scores(
    model: PreTrainedModel, samples: Sequence[Sample], answer_ids: tuple[int, int], *, batch_tokens: int
) -> list[float]:
    """p(yes) of every candidate of every sample, in order, at full depth."""
    return _differences(model, samples, answer_ids, batch_tokens).sigmoid().tolist()


@torch.inference_mode()
def _differences(
    model: PreTrainedModel, samples: Sequence[Sample], answer_ids: tuple[int, int], batch_tokens: int
) -> Tensor:
    """z_yes - z_no of every candidate of every sample, in order [A]."""
    lengths = [sample.num_tokens for sample in samples]
    found: dict[int, list[float]] = {}
    for indices in plan_batches(lengths, batch_tokens, torch.Generator().manual_seed(0)):
        batch = pack([samples[index] for index in indices])
        answers = _hidden_states(model, batch)[batch.answer_rows, batch.answer_columns]  # [A, D]
        flat = iter(_answer_logits(model, answers, answer_ids).tolist())
        found |= {index: [next(flat) for _ in samples[index].labels] for index in indices}
    return torch.tensor([difference for index in range(len(samples)) for difference in found[index]])


def _mean_loss(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    answer_ids: tuple[int, int],
    batch_tokens: int,
    world_size: int,
) -> float:
    """Mean cross-entropy of the answers of all workers' samples; `samples` are this worker's."""
    labels = torch.tensor([float(label) for sample in samples for label in sample.labels])
    differences = _differences(model, samples, answer_ids, batch_tokens) if samples else labels
    total = functional.binary_cross_entropy_with_logits(differences, labels, reduction="sum").double()
    sums = torch.stack([total, torch.tensor(len(labels), dtype=torch.float64)]).to(model.device)
    if world_size > 1:
        dist.all_reduce(sums)
    return (sums[0] / sums[1]).item()


def _bfloat16(model: PreTrainedModel, enabled: bool) -> torch.autocast:
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=enabled)


def _hidden_states(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Final-norm hidden states [B, T, D]."""
    device = model.device
    return model.model(
        input_ids=batch.ids.to(device),
        attention_mask=batch.mask.to(device),
        position_ids=batch.positions.to(device),
        use_cache=False,
    ).last_hidden_state


def _answer_logits(model: PreTrainedModel, answers: Tensor, answer_ids: tuple[int, int]) -> Tensor:
    """[A, D] -> [A] z_yes - z_no."""
    rows = model.lm_head.weight[list(answer_ids)]  # [2, D]
    return answers.float() @ (rows[0] - rows[1]).float()


def _optimizers(model: PreTrainedModel, settings: TuningSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the layers' matrices and AdamW for embeddings and norms."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices: list[torch.nn.Parameter] = []
    optimizers: list[torch.optim.Optimizer] = []
    if settings.muon_learning_rate is not None:
        matrices = [p for p in model.model.layers.parameters() if p.requires_grad and p.ndim == 2]
        muon = torch.optim.Muon(
            matrices,
            lr=settings.muon_learning_rate,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    taken = set(map(id, matrices))
    rest = [parameter for parameter in trainable if id(parameter) not in taken]
    rate, decay = settings.learning_rate, settings.weight_decay
    return [*optimizers, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay)]


def _average_gradients(parameters: Sequence[torch.nn.Parameter], world_size: int) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size
