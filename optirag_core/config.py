"""Every setting of OptiRAG, with its unit, its bounds and its default; `config_file` reads them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
ExitCriterion = Literal["ratio", "probability", "confidence", "entropy", "patience"]


class Section(BaseModel):
    """A group of settings: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class SyntheticSettings(Section):
    """Size of the generated data set (BookCrossing's raw format)."""

    num_users: Count = 1500
    num_books: Count = 400
    mean_ratings_per_user: Positive = 18.0


class SplitSettings(Section):
    """How interactions are divided into train / tune / validation / test (`optirag_core.data.splits`)."""

    method: Literal["auto", "leave_last_out", "last_share", "time_cut"] = Field(
        "auto",
        description="auto: time_cut where the data has times and it leaves 100 test users, else last_share; "
        "leave_last_out: a user's last interaction is test, the one before validation; "
        "last_share: the last shares of every user's interactions; time_cut: one global cut by time",
    )
    validation_share: Share = 0.1
    test_share: Share = 0.1
    tune_share: Share = Field(
        0.1,
        description="share of the training samples kept out of the graph as targets for the LLM and the exit heads "
        "(paper: < 10 %)",
    )
    heads_share: Share = Field(0.2, description="share of users whose targets teach the exit heads, not the LLM")
    policy_share: Share = Field(0.15, description="share of users on whose validation rows the exit policy is chosen")

    @model_validator(mode="after")
    def _llm_has_users(self) -> Self:
        if (taken := self.heads_share + self.policy_share) >= 1.0:
            raise ValueError(
                f"heads_share + policy_share of dataset.split is {taken:g}, expected less than 1: the rest of the "
                "users teach the LLM"
            )
        return self


class DatasetSettings(Section):
    """Where the interactions come from and which of them count as liked."""

    source: Literal["synthetic", "bookcrossing", "amazon", "yelp", "tables"] = "synthetic"
    path: str | None = Field(None, description="folder with the publisher's raw files; --data sets it")
    header: Literal["auto", "none"] = Field("auto", description="BookCrossing: `none` reads files without header line")
    category: str | None = Field(None, description="Amazon: file stem, e.g. Gift_Cards, when the folder holds several")
    like_threshold: float = Field(3.0, description="label = rating > threshold (paper section 6)")
    explicit_only: bool = Field(False, description="drop rating 0, which BookCrossing uses for implicit feedback")
    max_malformed_share: Share = 0.01
    min_history: Count = Field(3, description="past interactions that a sample needs (paper section 6)")
    split: SplitSettings = SplitSettings()
    synthetic: SyntheticSettings = SyntheticSettings()

    @model_validator(mode="after")
    def _path_when_raw(self) -> Self:
        if self.source != "synthetic" and self.path is None:
            raise ValueError(f"dataset.source {self.source} reads raw files: give --data DIR")
        return self


class EvidenceSettings(Section):
    """What all interactions before a moment say about a pair, and who reads it."""

    attributes: tuple[str, ...] | None = Field(
        None,
        description="columns of items whose values are counted, e.g. author, brand; a list counts each of its values. "
        "Default: all columns but item_id and title with text or lists of it that have two values or more, at least "
        "half of the entries with a value that another item has, too",
    )
    heads: bool = Field(True, description="every answer head reads it beside the hidden state; false: the paper's form")
    prompt: bool = Field(False, description="the prompt says it in words")


class RetrieverSettings(Section):
    """GCN-Retriever (paper section 4, algorithm 1): the vectors of users and items."""

    num_layers: Count = 3
    embedding_dim: Count = 64
    aggregate: Literal["mean", "last", "weighted"] = "mean"
    layer_weights: tuple[float, ...] | None = Field(None, description="alpha_1..alpha_K for aggregate: weighted")
    learning_rate: Positive = 0.01
    l2: Annotated[float, Field(ge=0.0)] = 1e-4
    batch_size: Count = Field(1024, description="BPR triples per step, summed over workers")
    max_epochs: Count = 40
    patience: Count = Field(4, description="epochs without a better validation loss before training stops")

    @model_validator(mode="after")
    def _weights_match_layers(self) -> Self:
        given = None if self.layer_weights is None else len(self.layer_weights)
        if self.aggregate == "weighted" and given != self.num_layers:
            raise ValueError(f"aggregate: weighted needs {self.num_layers} retriever.layer_weights, got {given or 0}")
        return self


class IndexSettings(Section):
    """The index over the retriever's user vectors."""

    factory: str = Field("Flat", description="FAISS factory string; Flat is exact")


class PromptSettings(Section):
    """The prompt (paper section 9.1, tables 6-8)."""

    template: str = Field("generic", description="books, amazon, yelp, generic, or the path of a .jinja file")
    item_fields: tuple[str, ...] = Field((), description="generic template: item columns shown after the title")
    num_similar_users: Annotated[int, Field(ge=0)] = 4
    max_history: Count = Field(15, description="interactions shown of the target user (paper section 9.1.1)")
    max_similar_history: Count = Field(15, description="interactions shown of each similar user")
    max_tokens: Count = Field(2048, description="prefix + longest suffix; the oldest history is dropped above it")
    answer_yes: str = "yes"
    answer_no: str = "no"

    @field_validator("template")
    @classmethod
    def _absolute(cls, template: str) -> str:
        """Workers run in other folders than the driver; the name of a template of ours stays as it is."""
        return str(Path(template).absolute()) if template.endswith(".jinja") else template


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
    batch_tokens: Count = Field(4096, description="padded tokens of a batch")
    batches_per_step: Count = Field(1, description="batches of a worker whose gradients one optimiser step averages")
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

    path: str | None = Field(
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

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        """Workers run in other folders than the driver; a hub name stays as it is."""
        return str(Path(path).absolute()) if path and Path(path).exists() else path

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


class ExitFeaturesSettings(Section):
    """Hidden states of the frozen LLM at labelled pairs, from which heads and policies are made."""

    max_users: Count | None = Field(
        None, description="at most this many users of each role (heads, policy) and split, spread evenly"
    )
    test_users: Count = Field(
        2000,
        description="test users, drawn with the seed as requests.max_users draws, at whom the report looks layer by "
        "layer; nothing learns from them",
    )
    frozen_prefixes: tuple[Count, ...] = Field(
        (), description="values of exit_policy.frozen_prefix_after to choose from; each runs the LLM once more"
    )


class ExitHeadsSettings(Section):
    """The heads of multi-head early exit and their training (paper section 5.2)."""

    layers: tuple[Count, ...] = Field(
        (3, 4), description="1-based; of the default llm.scratch.shape. The paper's, for 32 layers: 5, 10, ..., 30"
    )
    learning_rate: Positive = Field(1e-3, description="lambda_0 of section 5.2")
    decay: Annotated[float, Field(ge=0.0)] = Field(0.1, description="beta of section 5.2")
    epochs: Count = 20
    batch_size: Count = 256
    single_head: bool = Field(False, description="the head of the last layer at every exit layer, for comparison")
    loss: Literal["answers", "vocabulary"] = Field(
        "answers",
        description="cross-entropy of the answer among the two answer words, which is what scoring reads; or among all "
        "tokens (section 5.2)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                f"exit_heads.layers must be a strictly increasing, non-empty list, got {list(self.layers)}"
            )
        return self


class ExitPolicySettings(Section):
    """When a pair stops (paper section 5, algorithm 2): as calibrated, or by a policy that is named here."""

    criterion: Literal["calibrated", ExitCriterion, "none"] = Field(
        "calibrated",
        description="calibrated: the policy that calibrate_exits has certified; none: full depth; any other needs "
        "uncertified. ratio: p_yes/p_no (algorithm 2); probability: p_yes (section 5.1); confidence: max(p, 1 - p); "
        "entropy: in nats; patience: one answer over the window",
    )
    uncertified: bool = Field(
        False, description="score by an approximate policy that has no certificate; --uncertified sets it"
    )
    window: Annotated[int, Field(ge=2)] = Field(3, description="m of algorithm 2; of calibrated policies the widest")
    threshold: Annotated[float, Field(ge=0.0)] = Field(0.01, description="tau of algorithm 2")
    evidence_confidence: Annotated[float, Field(ge=0.5, le=1.0)] | None = Field(
        None, description="a pair of which the evidence alone is at least this sure stops before layer 1; approximate"
    )
    group_stop: Count | None = Field(
        None, description="k_min: a user's candidates stop together once fewer of them are left; approximate"
    )
    frozen_prefix_after: Count | None = Field(
        None, description="above this layer the shared prefix keeps its hidden states; approximate"
    )

    @model_validator(mode="after")
    def _certified(self) -> Self:
        approximations = {name: getattr(self, name) for name in ("evidence_confidence", "frozen_prefix_after")}
        if self.criterion == "calibrated":
            names = ("threshold", "group_stop", *approximations)
            named = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
            if named:
                raise ValueError(
                    f"exit_policy.{named[0]} belongs to a policy that is named by hand, and calibrate_exits chooses "
                    "its own: leave it out, or set exit_policy.criterion as well"
                )
        elif not self.uncertified and (self.criterion != "none" or any(approximations.values())):
            raise ValueError(
                f"exit_policy.criterion {self.criterion} with these settings may change scores and has no certificate: "
                "set it to calibrated, or to none alone for full depth, or give --uncertified"
            )
        return self


class CalibrationSettings(Section):
    """The exit policies to choose from, and what the chosen one may cost (`optirag_core.training.exit_policy`).

    Windows are 2 to `exit_policy.window`, exit layers all of `exit_heads.layers` or the last ones of them.
    """

    epsilon: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.005, description="nats of log loss against full depth, averaged over a user's pairs and over users"
    )
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="chance, over the draw of the users, that a policy is chosen that costs more than epsilon"
    )
    criteria: tuple[ExitCriterion, ...] = Field(
        ("ratio", "probability", "confidence", "patience"),
        description="rules to try; entropy is left out because it stops the same pairs as confidence",
    )
    thresholds: tuple[Positive, ...] = Field(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
        description="of every criterion but patience; confidence takes 1 - threshold",
    )
    group_stops: tuple[Count | None, ...] = Field(
        (None, 2, 4), description="used where every user has as many candidates"
    )
    evidence_shares: tuple[Share, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        description="share of pairs that stop at depth 0, the surest first; used where the heads read evidence",
    )


class EngineSettings(Section):
    """How the LLM computes scores."""

    dtype: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is for GPUs: 6-8x slower on CPUs")
    max_tokens_in_flight: Count = Field(
        16384, description="prompt tokens that the engine holds at a time; one step takes at most half of them"
    )
    deterministic: bool = Field(
        False, description="rows are filled up to fixed sizes, so that a pair's last bits depend less on its neighbours"
    )
    compile_layers: bool = Field(False, description="run the LLM's layers through torch.compile; a minute at start-up")


class RequestsSettings(Section):
    """What the job `score` is asked for."""

    path: str | None = Field(
        None, description="Parquet file or folder of requests or pairs, local or s3://; default: the test split"
    )
    max_users: Count | None = Field(None, description="of the test split: a seeded sample of at most this many users")
    all_items_top_k: Count | None = Field(
        None,
        description="users without a candidate list get this many items of the retriever; with no requests.path all "
        "users do; --all-items sets it",
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path if path is None or "://" in path else str(Path(path).absolute())

    @model_validator(mode="after")
    def _sample_of_the_split(self) -> Self:
        if self.max_users and (self.path or self.all_items_top_k):
            raise ValueError("requests.max_users samples the test split: set it to null with other requests")
        return self


class RunSettings(Section):
    """A scoring run: its name, its shards, and what ends it."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run, e.g. a date; default: its id"
    )
    pairs_per_shard: Count = Field(2000, description="about this many pairs, of whole users, per shard")
    max_reject_share: Share = Field(0.01, description="the job fails above this share of rejected pairs")
    stall_timeout_s: Positive = Field(900.0, description="the job ends when no shard was finished for this long")
    lease_s: Positive = Field(60.0, description="another driver may take a run over after a silence of this length")
    clean: bool = Field(False, description="after the commit, remove attempts of this run that it does not use")

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name in ("LATEST", "scores"):
            raise ValueError(f"run.name {name} is a name that the workspace uses: give another")
        return name


class ActorsSettings(Section):
    """The processes of a scoring run and what Ray reserves for each."""

    num_scorers: Count = Field(1, description="the pool's least size")
    max_scorers: Count | None = Field(None, description="the pool's largest size; default: num_scorers, a fixed pool")
    num_cpus_per_scorer: Annotated[float, Field(ge=0.0)] = 0.5
    num_gpus_per_scorer: Annotated[float, Field(ge=0.0)] = 0.0
    memory_gib_per_scorer: Positive | None = Field(None, description="main memory that Ray reserves for a scorer")
    accelerator_type: str | None = Field(None, description="Ray accelerator type of a scorer, e.g. A100")
    torch_threads: Count = Field(2, description="threads of torch in each scorer")
    num_prompt_builders: Count = Field(1, description="actors that build the next shards' prompts")
    num_cpus_per_prompt_builder: Positive = 0.5

    @model_validator(mode="after")
    def _pool_has_a_size(self) -> Self:
        if self.max_scorers and self.max_scorers < self.num_scorers:
            raise ValueError(f"actors.max_scorers {self.max_scorers} is below actors.num_scorers {self.num_scorers}")
        return self


class WorkersSettings(Section):
    """The workers of one training job."""

    num_workers: Annotated[int, Field(ge=0)] = Field(1, description="0 trains in the driver's own process")
    num_cpus_per_worker: Positive = 1.0
    num_gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    torch_threads: Count = Field(2, description="threads of torch in each worker")


class TrainingSettings(Section):
    """The resources of each training job. More workers take larger steps of the LLM and the heads; no version tells."""

    retriever: WorkersSettings = WorkersSettings()
    llm: WorkersSettings = WorkersSettings()
    exit_heads: WorkersSettings = WorkersSettings()


class StorageSettings(Section):
    """How often and how long an S3 workspace is tried; credentials come from the standard chain alone."""

    max_attempts: Count = Field(10, description="tries of one request; 3 fail 1 in 5 operations at 30 % errors")
    connect_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 60.0
    cache_days: Positive = Field(14.0, description="a machine's copy that no job has opened for this long is removed")


class RaySettings(Section):
    """The Ray that a job runs on."""

    address: str = Field("local", description="`local` starts a Ray on this machine; `auto` joins the cluster's")
    num_cpus: Count = Field(2, description="logical CPUs of the local Ray")
    object_store_mib: Annotated[int, Field(ge=80)] = 256


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
    engine: EngineSettings = EngineSettings()
    requests: RequestsSettings = RequestsSettings()
    run: RunSettings = RunSettings()
    actors: ActorsSettings = ActorsSettings()
    training: TrainingSettings = TrainingSettings()
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
