"""Artifacts -> the parts that turn requests into scores."""

from transformers import AutoConfig, PreTrainedTokenizerBase

from optirag_core.config import PromptSettings, Settings
from optirag_core.data.histories import Histories
from optirag_core.data.rows import Rows
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import check_context, load_answer_ids, load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ConfigError
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.assembly import PromptAssembler
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.index import UserIndex
from optirag_core.training.certificate import Calibration
from optirag_core.training.policy_grid import Choice


def open_assembler(
    settings: PromptSettings, artifacts: Artifacts, tokenizer: PreTrainedTokenizerBase
) -> tuple[PromptAssembler, PromptBuilder]:
    """Histories, similar users and token pieces behind one `assemble`."""
    dataset = artifacts["dataset"].path
    builder = PromptBuilder(settings, tokenizer, Rows.open(dataset, "item"))
    index = UserIndex.load(artifacts["retriever"].path, artifacts["index"].path)
    histories, users = Histories.open(dataset), Rows.open(dataset, "user")
    assembler = PromptAssembler(
        histories, users, index, builder, settings, num_similar_users=settings.num_similar_users
    )
    return assembler, builder


def open_policy(settings: Settings, artifacts: Artifacts) -> Choice:
    """The exit policy that scores, and its exit layers: the certified one, unless the settings name another."""
    named = settings.exit_policy
    if named.criterion == "calibrated":
        certified = Calibration.load(artifacts["exit_policy"].path).certified
        return certified.policy, certified.layers
    return ExitPolicy(**named.model_dump(exclude={"uncertified"})), settings.exit_heads.layers


def open_scorer(
    settings: Settings, artifacts: Artifacts, *, choice: Choice | None = None, device: str = "cpu"
) -> Scorer:
    """The scorer of these artifacts.

    Args:
        choice: exit policy and exit layers; default those of `open_policy`.
    """
    policy, layers = choice or open_policy(settings, artifacts)
    engine = settings.engine
    model, _ = load_llm(artifacts["llm"].path, dtype=engine.dtype)
    model.to(device)
    heads = ExitHeads(model, settings.exit_heads.layers, load_answer_ids(artifacts["llm"].path))
    heads.load(artifacts["exit_heads"].path)
    return Scorer(
        model, heads.to(model.device), policy, layers=layers, max_tokens_in_flight=engine.max_tokens_in_flight,
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
