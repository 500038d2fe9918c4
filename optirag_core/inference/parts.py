"""Artifacts -> the parts that turn requests into scores."""

from transformers import AutoConfig, PreTrainedTokenizerBase

from optirag_core.config import Settings
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import check_context, load_answer_ids, load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ConfigError
from optirag_core.evidence.model import PairEvidence
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.assembly import PromptAssembler
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.index import UserIndex


def open_assembler(
    settings: Settings, artifacts: Artifacts, tokenizer: PreTrainedTokenizerBase
) -> tuple[PromptAssembler, PromptBuilder]:
    """Histories, similar users, evidence and token pieces behind one `assemble`."""
    dataset, prompt, uses = artifacts["dataset"].path, settings.prompt, settings.evidence
    builder = PromptBuilder(prompt, tokenizer, Rows.open(dataset, "item"), evidence=uses.prompt)
    index = UserIndex.load(artifacts["retriever"].path, artifacts["index"].path)
    histories, users = Histories.open(dataset), Rows.open(dataset, "user")
    assembler = PromptAssembler(
        histories, users, index, builder, prompt, num_similar_users=prompt.num_similar_users,
        evidence=PairEvidence.open(artifacts["evidence"].path) if uses.heads or uses.prompt else None, uses=uses,
    )  # fmt: skip
    return assembler, builder


def open_scorer(settings: Settings, artifacts: Artifacts, *, device: str = "cpu") -> Scorer:
    """The scorer of these artifacts."""
    engine = settings.engine
    model, _ = load_llm(artifacts["llm"].path, dtype=engine.dtype)
    model.to(device)
    answer_ids = load_answer_ids(artifacts["llm"].path)
    heads = ExitHeads(model, settings.exit_heads.layers, answer_ids)
    heads.load(artifacts["exit_heads"].path)
    policy = ExitPolicy(**settings.exit_policy.model_dump())
    return Scorer(
        model, heads.to(model.device), policy, answer_ids, max_tokens_in_flight=engine.max_tokens_in_flight,
        deterministic=engine.deterministic, compile_layers=engine.compile_layers,
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
