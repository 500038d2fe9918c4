"""Settings of `ray_jobs.reproduce`: which parts of the paper's experiments are run, and at what cost."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from optirag_core.config.llm import LlmSettings
from optirag_core.config.section import Count, ModelPath, Positive, Section

Part = Literal[
    "leaks", "table1", "table2", "table3", "table4", "table5", "table9", "figure3", "figure4", "figure6", "ours",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)


class ReproduceSettings(Section):
    """The paper's experimental section on this data set."""

    parts: tuple[Part, ...] = Field(PARTS, description="--only table2,table3 sets it; finished cells are kept")
    tune: Literal["each", "shared"] = Field(
        "each",
        description="each: another retriever or none has an LLM tuned on its own prompts, as in the paper; shared: the "
        "one LLM reads the other prompts, minutes instead of hours",
    )
    num_similar_users: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2, 3, 4, 5, 6, 7, 8), description="figure 6 (a); they share all but the prompts"
    )
    thresholds: tuple[Positive, ...] = Field((0.005, 0.01, 0.02, 0.05, 0.1), description="figure 6 (b)")
    windows: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (2, 3, 4, 5), description="figure 6 (c); the first exit layer has to be as deep as the widest"
    )
    text_encoder: ModelPath = Field(
        None, description="of the LLM-retriever, as retriever.text.encoder; null: the run's own tuned LLM"
    )
    smaller_llm: LlmSettings | None = Field(
        None, description="table 9; null: llm.scratch with half the width, for a pretrained one its defaults"
    )
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.5, description="of SparseGPT (section 9.3.1)")
    calibration_users: Count = Field(64, description="tune users whose prompts SparseGPT reads")
    timed_users: Count = Field(256, description="test users at whom pairs per second and live exits are measured")
    timed_rounds: Count = Field(3, description="of each; medians are shown")

    @field_validator("parts", mode="before")
    @classmethod
    def _named(cls, parts: Any) -> Any:
        """`table2,table3` on a command line."""
        return tuple(part.strip() for part in parts.split(",")) if isinstance(parts, str) else parts
