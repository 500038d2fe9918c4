"""Settings of how jobs run: engine, requests, shards, actors, training resources, storage, Ray."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from optirag_core.config.section import Count, Positive, Section, Share


class EngineSettings(Section):
    """How the LLM computes scores."""

    dtype: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is for GPUs: 6-8x slower on CPUs")
    max_tokens_in_flight: Count = Field(
        16384, description="prompt tokens that the engine holds at a time; one step takes at most half of them"
    )
    deterministic: bool = Field(
        False,
        description="one user per row of tokens: the same bits whatever else is scored; a GPU then has less to do "
        "at a time",
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
    pointer: str = Field(
        "LATEST",
        pattern=r"^LATEST(-[A-Za-z0-9._-]+)?$",
        description="what names the run once it is committed. Readers and `compare` look at LATEST; a run of another "
        "one, e.g. LATEST-test, is found by it alone",
    )
    pairs_per_shard: Count = Field(2000, description="about this many pairs, of whole users, per shard")
    max_reject_share: Share = Field(0.01, description="the job fails above this share of rejected pairs")
    stall_timeout_s: Positive = Field(900.0, description="the job ends when no shard was finished for this long")
    max_attempts: Count = Field(
        3, description="the job ends when so many processes, those of lost nodes too, have ended at one shard"
    )
    lease_s: Positive = Field(60.0, description="another driver may take a run over after a silence of this length")
    clean: bool = Field(False, description="after the commit, remove attempts of this run that it does not use")

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name and (name.startswith("LATEST") or name == "scores"):
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
    accelerator_type: str | None = Field(None, description="Ray accelerator type of a worker, e.g. A100")
    torch_threads: Count = Field(2, description="threads of torch in each worker")


class LlmWorkersSettings(WorkersSettings):
    """The workers that tune the LLM."""

    parallelism: Literal["ddp", "fsdp"] = Field(
        "ddp", description="ddp: every worker holds the LLM whole; fsdp: its part, for what one GPU cannot hold"
    )
    recompute: bool = Field(
        False, description="keep no activations inside of the layers, compute them again: slower, less memory"
    )


class TrainingSettings(Section):
    """The resources of each training job; workers train the same in any number, but for rounding and dropout."""

    retriever: WorkersSettings = WorkersSettings()
    llm: LlmWorkersSettings = LlmWorkersSettings()
    exit_heads: WorkersSettings = WorkersSettings()
    baselines: WorkersSettings = WorkersSettings(num_workers=2, torch_threads=1)  # each trains models of its own
    checkpoint_s: Positive = Field(300.0, description="least time between two checkpoints: what a kill costs")
    max_failures: Annotated[int, Field(ge=0)] = Field(
        3, description="how often lost workers are replaced, which go on from the last checkpoint"
    )


class TrackingSettings(Section):
    """Where a training's figures and a scoring run's events go, beside the terminal."""

    tensorboard: str | None = Field(None, description="folder of TensorBoard's event files, one folder per training")
    mlflow: str | None = Field(None, description="MLflow's tracking URI, e.g. http://host:5000")
    events: str | None = Field(
        None, description="`stdout`, `stderr` or a file: one JSON line for each event of a scoring run"
    )
    pushgateway: str | None = Field(
        None, description="URL of a Prometheus Pushgateway, which is told when a run is committed"
    )

    @field_validator("tensorboard", "events")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path if path in (None, "stdout", "stderr") else str(Path(path).absolute())


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
    wait_for_nodes_s: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="how long a job waits for an autoscaler to bring the nodes it needs; 0: they have to be there"
    )
