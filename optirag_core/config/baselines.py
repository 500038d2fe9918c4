"""Settings of the CTR models that the LLM is compared with."""

from typing import Annotated, Literal

from pydantic import Field

from optirag_core.config.section import Count, Positive, Section

BaselineName = Literal["DeepFM", "DIN", "GRU4Rec", "AutoInt", "DCNv2", "WuKong", "GDCN", "EulerNet"]


class BaselinesSettings(Section):
    """The models of the paper's table 2, each trained on all samples, with the same budget on validation."""

    models: tuple[BaselineName, ...] = ("DeepFM", "DIN", "GRU4Rec", "AutoInt", "DCNv2", "WuKong", "GDCN", "EulerNet")
    num_seeds: Count = Field(1, description="trainings of each model, with the seeds `seed`, `seed` + 1 ...")
    num_trials: Count = Field(
        6,
        description="of each model on validation: points of the grid that learning_rates, weight_decays, dropouts and "
        "num_layers span, drawn with the seed, the same for all models",
    )
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5e-4, 1e-3)
    weight_decays: Annotated[tuple[Annotated[float, Field(ge=0.0)], ...], Field(min_length=1)] = (3e-4, 1e-3)
    dropouts: Annotated[tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...], Field(min_length=1)] = (0.0, 0.2)
    num_layers: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3)
    embedding_dim: Count = 16
    hidden: tuple[Count, ...] = (128, 64)
    batch_size: Count = Field(2048, description="pairs per step")
    max_epochs: Count = 20
    patience: Count = Field(1, description="epochs without a better validation loss before a trial ends")
    min_history: Annotated[int, Field(ge=0)] = Field(
        0,
        description="past interactions that a training pair needs; validation and test pairs need those of "
        "dataset.min_history. With 3 BookCrossing has 143,814 training pairs instead of 236,156, and DeepFM a "
        "validation AUC of 0.7284 instead of 0.7303",
    )
    min_count: Count = Field(2, description="training pairs that a user, an item or a value needs for an id of its own")
