"""Low-rank adapters beside the weights of a pretrained LLM (LoRA, arXiv:2106.09685).

Shapes: R rank, I inputs and O outputs of a linear layer: W' = W + alpha / R * B A, with A [R, I] and B [O, R].
"""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from optirag_core.config.llm import LoraSettings
from optirag_core.errors import ModelError


def with_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int) -> PeftModel:
    """Freeze the model and put an adapter beside each of the named layers; B starts at 0, so no score changes.

    Raises:
        ModelError: the model has no layer of one of the names.
    """
    linear = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if unknown := sorted(set(settings.modules) - linear):
        raise ModelError(
            f"llm.pretrained.lora.modules names {unknown[0]}, but the linear layers of this LLM are "
            f"{', '.join(sorted(linear))}: set it to some of them"
        )
    torch.manual_seed(seed)  # all workers start from the same random matrices
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)
