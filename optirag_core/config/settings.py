"""All settings of OptiRAG, each with its unit, its bounds and its default; `config_file` reads them."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from optirag_core.config.baselines import BaselinesSettings
from optirag_core.config.comparison import CompareSettings
from optirag_core.config.data import DatasetSettings, EvidenceSettings, IndexSettings, PromptSettings, RetrieverSettings
from optirag_core.config.exits import CalibrationSettings, ExitFeaturesSettings, ExitHeadsSettings, ExitPolicySettings
from optirag_core.config.llm import LlmSettings
from optirag_core.config.plan import PlanSettings
from optirag_core.config.reproduction import ReproduceSettings
from optirag_core.config.run import (
    ActorsSettings,
    EngineSettings,
    RaySettings,
    RequestsSettings,
    RunSettings,
    StorageSettings,
    TrackingSettings,
    TrainingSettings,
)
from optirag_core.config.section import Section
from optirag_core.config.serving import ServingSettings


class Settings(Section):
    """All settings: one section per artifact, in the order in which they are made, then how jobs run."""

    workspace: str = Field(
        "runs/default", validate_default=True, description="local folder or s3://bucket/prefix that holds the artifacts"
    )
    seed: int = 0
    dataset: DatasetSettings = DatasetSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    retriever: RetrieverSettings = RetrieverSettings()
    index: IndexSettings = IndexSettings()
    prompt: PromptSettings = PromptSettings()
    llm: LlmSettings = LlmSettings()
    exit_features: ExitFeaturesSettings = ExitFeaturesSettings()
    exit_heads: ExitHeadsSettings = ExitHeadsSettings()
    exit_policy: ExitPolicySettings = ExitPolicySettings()
    calibration: CalibrationSettings = CalibrationSettings()
    baselines: BaselinesSettings = BaselinesSettings()
    reproduce: ReproduceSettings = ReproduceSettings()
    engine: EngineSettings = EngineSettings()
    requests: RequestsSettings = RequestsSettings()
    run: RunSettings = RunSettings()
    compare: CompareSettings = CompareSettings()
    actors: ActorsSettings = ActorsSettings()
    serving: ServingSettings = ServingSettings()
    training: TrainingSettings = TrainingSettings()
    tracking: TrackingSettings = TrackingSettings()
    plan: PlanSettings = PlanSettings()
    storage: StorageSettings = StorageSettings()
    ray: RaySettings = RaySettings()

    @field_validator("workspace")
    @classmethod
    def _absolute(cls, workspace: str) -> str:
        """Workers run in other folders than the driver."""
        return workspace if "://" in workspace else str(Path(workspace).absolute())

    @model_validator(mode="after")
    def _exits_inside_llm(self) -> Self:
        layers, window, num_layers = self.exit_heads.layers, self.exit_policy.window, self.llm.scratch.shape.num_layers
        if layers[0] < window:
            raise ValueError(
                f"exit_policy.window {window} reads {window} layers back: the first exit layer must be >= {window}, "
                f"got {layers[0]}"
            )
        if self.llm.init == "scratch" and layers[-1] >= num_layers:
            raise ValueError(
                f"exit_heads.layers {list(layers)} must lie below llm.scratch.shape.num_layers {num_layers}, where "
                "the LLM's own head stands"
            )
        return self
