"""Tiny random decoders and groups, and a trace's outcome in the form of a live run's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from optirag_core.engine.cost import Cost
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.heads import ExitHeads, p_yes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.trace import Trace

ANSWERS = (7, 3)
EXIT_LAYERS = (3, 5, 6)
VOCABULARY = 50
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=4),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=1),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16),
}


def tiny_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_heads(model: PreTrainedModel, layers: tuple[int, ...] = EXIT_LAYERS, *, num_features: int = 0) -> ExitHeads:
    """Heads that differ from the LM's own and from each other."""
    heads = ExitHeads(model, layers, ANSWERS, num_features).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in heads.named_parameters():
        scale = 1.0 if "evidence" in name or name.startswith("heads.0.") else 0.05
        parameter += scale * torch.randn(parameter.shape, generator=generator)
    return heads


def random_group(prefix: int, suffixes: list[int], seed: int, *, num_features: int = 0) -> UserGroup:
    generator = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()

    group = UserGroup(tokens(prefix), [tokens(length) for length in suffixes])
    evidence = torch.randn(len(suffixes), num_features, generator=generator).tolist()
    return replace(group, evidence=evidence) if num_features else group


@dataclass(frozen=True)
class Replay:
    """What a live run with the policy returns, and its cost."""

    scores: list[list[PairScore]]
    cost: Cost


def replay(trace: Trace, policy: ExitPolicy, *, layers: Sequence[int] | None = None) -> Replay:
    """`Trace.outcome` in the form of a live run's scores."""
    outcome = trace.outcome(policy, layers)
    columns = p_yes(outcome.logits), outcome.exit_layers, outcome.forced
    pairs = map(PairScore, *(column.tolist() for column in columns))
    return Replay([list(islice(pairs, size)) for size in trace.sizes], outcome.cost)
