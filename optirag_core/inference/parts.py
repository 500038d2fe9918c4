"""Artifacts -> the parts that turn requests into scores."""

from typing import Literal

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.config.settings import Settings
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.engine.heads import AnswerHead, ExitHeads, lm_answer_head
from optirag_core.engine.loading import check_context, load_answer_ids, load_llm
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ConfigError
from optirag_core.evidence.model import EvidenceModel, PairEvidence
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.policy import open_policies, open_policy
from optirag_core.prompting.assembly import PromptAssembler
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.index import UserIndex


def open_assembler(
    settings: Settings, artifacts: Artifacts, tokenizer: PreTrainedTokenizerBase
) -> tuple[PromptAssembler, PromptBuilder]:
    """Histories, similar users, evidence and token pieces behind one `assemble`."""
    dataset, prompt = artifacts["dataset"].path, settings.prompt
    builder = PromptBuilder(prompt, tokenizer, Rows.open(dataset, "item"), evidence=settings.evidence.prompt)
    index = UserIndex.load(artifacts["retriever"].path, artifacts["index"].path)
    histories, users = Histories.open(dataset), Rows.open(dataset, "user")
    assembler = PromptAssembler(
        histories, users, index, builder, prompt, num_similar_users=prompt.num_similar_users,
        evidence=PairEvidence.open(artifacts["evidence"].path),
    )  # fmt: skip
    return assembler, builder


def open_scorer(settings: Settings, artifacts: Artifacts, *, device: str = "cpu") -> Scorer:
    """The scorer of these artifacts."""
    model, heads = _trained(settings, artifacts, settings.engine.dtype)
    return _scorer(settings, model, heads, open_policy(settings, artifacts), device)


def open_scorers(settings: Settings, artifacts: Artifacts, *, device: str = "cpu") -> dict[str, Scorer]:
    """Scorers for groups that come at any time, on one copy of the weights.

    Returns:
        By name: `NORMAL` as `open_scorer`, and `OVERLOAD` where a cheaper policy is certified.
    """
    model, heads = _trained(settings, artifacts, settings.engine.dtype)
    return {
        name: _scorer(settings, model, heads, choice, device, max_waits=settings.serving.max_waits)
        for name, choice in open_policies(settings, artifacts).items()
    }


def open_recorders(settings: Settings, artifacts: Artifacts, *, device: str = "cpu") -> dict[int | None, Scorer]:
    """The LLM before its heads are trained, for hidden states: by `frozen_prefix_after`."""
    model, _ = load_llm(artifacts["llm"].path, dtype=settings.engine.dtype)
    heads = untrained_heads(settings, artifacts, model)
    recorders = {}
    for frozen in (None, *settings.exit_features.frozen_prefixes):
        full_depth = ExitPolicy("none", settings.exit_policy.window, 0.0, frozen_prefix_after=frozen)
        recorders[frozen] = _scorer(settings, model, heads, (full_depth, heads.layers), device)
    return recorders


def open_heads(settings: Settings, artifacts: Artifacts) -> tuple[ExitHeads, AnswerHead]:
    """The trained heads, and the LM's own as it was before."""
    model, heads = _trained(settings, artifacts)
    return heads, lm_answer_head(model, load_answer_ids(artifacts["llm"].path))


def untrained_heads(settings: Settings, artifacts: Artifacts, model: PreTrainedModel) -> ExitHeads:
    """Plain copies of the LM head at every exit layer, plus what the evidence says where heads read it."""
    answer_ids, layers = load_answer_ids(artifacts["llm"].path), settings.exit_heads.layers
    if not settings.evidence.heads:
        return ExitHeads(model, layers, answer_ids)
    known = EvidenceModel.open(artifacts["evidence"].path)
    heads = ExitHeads(model, layers, answer_ids, len(known.weights))
    heads.start_from_evidence(torch.from_numpy(known.weights), known.bias)
    return heads


def _trained(
    settings: Settings, artifacts: Artifacts, dtype: Literal["float32", "bfloat16"] | None = None
) -> tuple[PreTrainedModel, ExitHeads]:
    """The LLM, as it was saved unless a dtype is given, and its trained heads."""
    model, _ = load_llm(artifacts["llm"].path, dtype=dtype)
    heads = untrained_heads(settings, artifacts, model)
    heads.load(artifacts["exit_heads"].path)
    return model, heads


def _scorer(
    settings: Settings, model: PreTrainedModel, heads: ExitHeads, choice: Choice, device: str,
    *, max_waits: int | None = None,
) -> Scorer:  # fmt: skip
    (policy, layers), engine = choice, settings.engine
    model.to(device)
    return Scorer(
        model, heads.to(device), policy, layers=layers, max_tokens_in_flight=engine.max_tokens_in_flight,
        deterministic=engine.deterministic, max_waits=max_waits, compile_layers=engine.compile_layers,
    )  # fmt: skip


def check_prompts_fit(settings: Settings, artifacts: Artifacts) -> None:
    """
    Raises:
        ConfigError: prompts may get longer than the LLM reads, or than a step of the engine.
    """
    check_context(settings.prompt.max_tokens, AutoConfig.from_pretrained(artifacts["llm"].path))
    longest, step = settings.prompt.max_tokens, settings.engine.max_tokens_in_flight // 2
    if longest > step:
        raise ConfigError(
            f"prompt.max_tokens {longest} exceeds a step of the scorer, {step}: raise engine.max_tokens_in_flight to "
            f"{2 * longest} or lower prompt.max_tokens"
        )
