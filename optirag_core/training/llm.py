"""Instruction tuning of the LLM on answer tokens (paper sections 3 and 5.2)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.config.llm import LoraSettings, ShapeSettings, TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.answers import AnswerLoss, answer_loss, mean_answer_loss
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.loop import optimize
from optirag_core.training.lora import with_lora
from optirag_core.training.packing import Sample
from optirag_core.training.selection import BestWeights
from optirag_core.training.state import Training
from optirag_core.training.steps import plan_steps
from optirag_core.training.workers import Workers, gathered, parallelize

MAX_GRADIENT_NORM = 1.0
INITIALIZER_RANGE = 0.04
"""Twice the default, which is made for widths of thousands: at width 128 it starts about twice as fast."""


@dataclass(frozen=True)
class Progress:
    """How far a tuning is: `number` of `total` optimiser steps done."""

    number: int
    total: int
    tokens: int  # that the step read, of all workers
    loss: float
    validation_loss: float | None = None  # where an epoch ends, mean over the validation answers


@dataclass(frozen=True)
class TunedLlm:
    """What a tuning ends with."""

    llm: PreTrainedModel | None  # None on other ranks than 0
    epochs: Sequence[Mapping[str, float | None]]  # step and losses of each that was validated
    curve: Mapping[str, Any]  # `Curve.points`


def llama_from_scratch(
    shape: ShapeSettings, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, seed: int
) -> PreTrainedModel:
    """A randomly initialised Llama for this tokenizer."""
    torch.manual_seed(seed)
    config = scratch_config(
        shape, vocab_size=len(tokenizer), max_tokens=max_tokens,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def scratch_config(
    shape: ShapeSettings, *, vocab_size: int, max_tokens: int,
    bos_token_id: int | None = None, pad_token_id: int | None = None,
) -> LlamaConfig:  # fmt: skip
    """The Llama that `llm.init: scratch` trains."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=max_tokens,
        bos_token_id=bos_token_id,
        eos_token_id=None,
        pad_token_id=pad_token_id,
        tie_word_embeddings=True,
        initializer_range=INITIALIZER_RANGE,
    )


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
    recompute: bool = False,
    workers: Workers = Workers(),
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> TunedLlm:
    """Tune all weights or a LoRA, which is merged at the end.

    Args:
        answer_ids: vocabulary ids of yes and no.
        lora: of the adapters; None tunes all weights.
        cold_start_samples: the same answers behind prompts without similar users, for `cold_start_epochs` of them
            first: a model from scratch learns to read histories there at a fraction of the tokens.
        validation: where given, the weights of the epoch with the least loss on their answers are kept, or the
            untouched ones where no epoch is better; not those of the last step.
        autocast: compute in bfloat16, whatever the weights are in.
        recompute: keep no activations inside of the layers, compute them again for the gradients (activation
            checkpointing, arXiv:1604.06174): more time, less memory.
        on_step: called after every optimiser step.

    Raises:
        DataError: there is no sample, or fewer batches than one step takes.
        ConfigError: the loss is not finite any more.
        ModelError: the LLM has no layers of the names that `lora` gives.
    """
    if not samples:
        raise DataError("no training sample for the LLM: lower dataset.min_history or raise dataset.split.tune_share")
    plan = plan_steps(cold_start_samples, samples, settings, seed=seed)
    adapted = with_lora(model, lora, seed=seed) if lora else model
    whole = _hollow(adapted) if workers.sharded else adapted
    module = _parallel(model, answer_ids, workers, autocast=autocast, recompute=recompute)

    validation_loss = partial(mean_answer_loss, module, validation, batch_tokens=settings.batch_tokens, workers=workers)
    best = BestWeights(partial(gathered, module, trained_only=True), validation_loss() if validation else None)
    training = Training("llm", module, optimizers_of(model, settings), best, workers)
    loss_of = partial(answer_loss, module, rating_weight=settings.history_loss_weight, workers=workers)
    for taken in optimize(
        training, loss_of, plan, seed=seed, max_gradient_norm=MAX_GRADIENT_NORM, checkpoints=checkpoints
    ):
        validated = None
        if validation and taken.step.ends_epoch:
            validated = validation_loss()
            best.offer({"step": taken.number, "loss": taken.epoch_loss, "validation_loss": validated})
        if on_step:
            tokens = sum(sample.num_tokens for batch in taken.step.batches for sample in batch)
            on_step(Progress(taken.number, len(plan), tokens, taken.loss, validated))
    if recompute:
        model.activation_checkpointing_disable()
    tuned = _put_together(training, best.weights, whole)
    return TunedLlm(tuned, best.history, training.curve.points(best.history))


def _parallel(
    model: PreTrainedModel, answer_ids: tuple[int, int], workers: Workers, *, autocast: bool, recompute: bool
) -> nn.Module:
    """The LLM's `AnswerLoss` on its workers."""
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    dtype = torch.bfloat16 if autocast else None
    return parallelize(AnswerLoss(model, answer_ids, dtype), workers, blocks=model.model.layers, dtype=dtype)


def _put_together(
    training: Training, best: dict[str, Any], whole: PreTrainedModel | PeftModel
) -> PreTrainedModel | None:
    """The LLM with its best weights, a LoRA merged, on rank 0; None on the others. All workers must call.

    Args:
        whole: the LLM or its LoRA: what was trained, or where that is in parts a copy without weights.
    """
    workers, adapted = training.workers, isinstance(whole, PeftModel)
    weights = gathered(training.module, trained_only=False) if workers.sharded else {}
    if workers.rank:
        return None
    if workers.sharded:
        _fill(whole.get_base_model() if adapted else whole, weights | best)
    else:
        set_model_state_dict(training.module, best, options=StateDictOptions(strict=False))
    return (whole.merge_and_unload() if adapted else whole).eval()


def _hollow(model: nn.Module) -> nn.Module:
    """A copy without weights, to put them together in after a training in parts."""
    empty = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _fill(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    AnswerLoss(model, (0, 0)).load_state_dict(weights, assign=True)
    model.tie_weights()


def optimizers_of(model: PreTrainedModel, settings: TuningSettings) -> list[torch.optim.Optimizer]:
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
