"""Settings of the LLM: trained from scratch or pretrained, and how it is tuned."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from optirag_core.config.section import Count, ModelPath, Positive, Section, Share


class ShapeSettings(Section):
    """Shape of the Llama that `llm.init: scratch` trains."""

    hidden_size: Count = 128
    intermediate_size: Count = 344
    num_layers: Count = 5
    num_heads: Count = 4
    vocab_size: Count = 2048

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self


class TuningSettings(Section):
    """How an LLM learns the answers (paper section 5.2)."""

    cold_start_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs before the others on prompts without similar users, which are several times shorter"
    )
    epochs: Count = 1
    max_steps: Count | None = None
    batch_tokens: Count = Field(4096, description="padded tokens of a batch, over all workers")
    batches_per_step: Count = Field(1, description="batches whose gradients one optimiser step averages")
    learning_rate: Positive = Field(2e-4, description="of AdamW")
    muon_learning_rate: Positive | None = Field(
        None, description="Muon trains the layers' matrices with this rate, AdamW the rest: faster from scratch"
    )
    warmup_share: Share = 0.05
    restart_learning_rate: bool = Field(False, description="the epochs behind the cold-start ones warm up again")
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    history_loss_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="weight of predicting each shown rating from what precedes it; helps models from scratch"
    )
    select_epoch: bool = Field(False, description="keep the epoch with the least validation loss, not the last one")


class ScratchSettings(TuningSettings):
    """A small Llama and its tokenizer, trained from the data."""

    shape: ShapeSettings = ShapeSettings()
    cold_start_epochs: Annotated[int, Field(ge=0)] = 1
    learning_rate: Positive = 3e-3
    muon_learning_rate: Positive | None = 0.01
    history_loss_weight: Annotated[float, Field(ge=0.0)] = 0.5


class LoraSettings(Section):
    """The adapters that `llm.pretrained.tuning: lora` trains in place of the weights."""

    rank: Count = 8
    alpha: Positive = Field(16, description="the adapters' product counts alpha / rank times")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    modules: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("q_proj", "v_proj"), description="names of the layers' linear parts that get an adapter"
    )


class PretrainedSettings(TuningSettings):
    """An LLM that is there already, tuned on the data."""

    path: ModelPath = Field(
        None, description="local folder, .gguf file, package://PACKAGE/FILE.gguf (of an installed package) or hub name"
    )
    tuning: Literal["full", "lora", "none"] = "lora"
    lora: LoraSettings = LoraSettings()
    shots: Count | None = Field(None, description="at most this many training prompts, drawn with the seed")
    learning_rate: Positive = Field(1e-3, description="of AdamW; 1e-4 suits tuning: full")
    warmup_share: Share = Field(0.15, description="the loss of SmolLM2 rises in the first steps; less was not tried")
    restart_learning_rate: bool = True
    select_epoch: bool = True
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is for GPUs: 6-8x slower on CPUs")

    @property
    def place(self) -> str:
        """`path`, where `llm.init` is pretrained."""
        assert self.path is not None, "`LlmSettings` has refused it"
        return self.path

    @model_validator(mode="after")
    def _muon_has_matrices(self) -> Self:
        if self.tuning == "lora" and self.muon_learning_rate is not None:
            raise ValueError(
                "llm.pretrained.muon_learning_rate is for whole matrices: leave it null with llm.pretrained.tuning lora"
            )
        return self


class LlmSettings(Section):
    """The LLM: trained from scratch or pretrained; the section that `init` does not name is not read."""

    init: Literal["scratch", "pretrained"] = "scratch"
    scratch: ScratchSettings = ScratchSettings()
    pretrained: PretrainedSettings = PretrainedSettings()

    @property
    def chosen(self) -> ScratchSettings | PretrainedSettings:
        """The section that `init` names."""
        return self.scratch if self.init == "scratch" else self.pretrained

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.init == "pretrained" and self.pretrained.path is None:
            raise ValueError(
                "llm.init: pretrained needs llm.pretrained.path: a local folder, a .gguf file, "
                "package://PACKAGE/FILE.gguf or a hub name"
            )
        return self
