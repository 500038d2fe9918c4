"""Settings of the data and of what is made from it before any LLM: evidence, retriever, index, prompt."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from optirag_core.config.section import Count, ModelPath, Positive, Section, Share


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
    events: bool = Field(
        False,
        description="add what the endpoint's event log holds by now; --events sets it. A new data set, so all "
        "that is made from it is made again",
    )
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


class TextRetrieverSettings(Section):
    """What `retriever.method: text` reads users and items with; nothing is trained."""

    encoder: ModelPath = Field(
        None,
        description="a Llama-like LLM or a BERT-like encoder: local folder, .gguf file, package://PACKAGE/FOLDER or "
        "package://PACKAGE/FILE.gguf (of an installed package) or hub name",
    )
    max_tokens: Count = Field(
        256, description="of a history, of which the newest entries are read first, or of an item; more are cut off"
    )
    batch_tokens: Count = Field(4096, description="padded tokens of a batch")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is for GPUs: 6-8x slower on CPUs")

    @property
    def place(self) -> str:
        """`encoder`, where `retriever.method` is text."""
        assert self.encoder is not None, "`RetrieverSettings` has refused it"
        return self.encoder


class RetrieverSettings(Section):
    """GCN-Retriever (paper section 4, algorithm 1): the vectors of users and items."""

    method: Literal["gcn", "fm", "text"] = Field(
        "gcn",
        description="to compare with: fm, a factorization machine, the same loss without propagation; text, a language "
        "model's mean state over the user's history",
    )
    text: TextRetrieverSettings = TextRetrieverSettings()
    num_layers: Count = 3
    embedding_dim: Count = 64
    aggregate: Literal["mean", "last", "weighted"] = "mean"
    layer_weights: tuple[float, ...] | None = Field(
        None, description="alpha_1..alpha_K for aggregate: weighted; default: learned, a softmax"
    )
    learning_rate: Positive = 0.01
    l2: Annotated[float, Field(ge=0.0)] = 1e-4
    batch_size: Count = Field(1024, description="BPR triples per step")
    max_epochs: Count = 40
    patience: Count = Field(4, description="epochs without a better validation loss before training stops")

    @model_validator(mode="after")
    def _weights_match_layers(self) -> Self:
        given = None if self.layer_weights is None else len(self.layer_weights)
        if self.aggregate == "weighted" and given not in (None, self.num_layers):
            raise ValueError(f"aggregate: weighted needs {self.num_layers} retriever.layer_weights, got {given}")
        return self

    @model_validator(mode="after")
    def _text_is_read_by_something(self) -> Self:
        if self.method == "text" and self.text.encoder is None:
            raise ValueError(
                "retriever.method: text needs retriever.text.encoder: a local folder, a .gguf file, "
                "package://PACKAGE/FOLDER, package://PACKAGE/FILE.gguf or a hub name"
            )
        return self


class IndexSettings(Section):
    """The index over the retriever's user vectors (docs/retrieval.md says which for how many users)."""

    factory: str = Field("Flat", description="FAISS factory string, e.g. IVF1024,Flat or HNSW32; Flat is exact")
    search_parameters: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]+=[1-9][0-9]{0,6}(,[A-Za-z_]+=[1-9][0-9]{0,6})*$",
        description="what a search may cost, in FAISS's words: nprobe=64, efSearch=128; default: an IVF index visits "
        "1/16 of its lists, or 8",
    )
    candidates: Annotated[int, Field(ge=1, le=2048)] = Field(
        64,
        description="users that FAISS returns, at least, to be ranked anew by their vectors: more for PQ; also the "
        "least efSearch of HNSW",
    )
    min_recall: Share = Field(
        0.9, description="an index that finds less of the true 10 nearest users is refused; Flat finds all"
    )
    min_history: Count = Field(
        1, description="training interactions of a user whom others may get as similar; all users may ask"
    )
    gpu: bool = Field(
        False, description="train and fill it on a GPU (faiss-gpu); it is stored, measured and searched on the CPU"
    )


class PromptSettings(Section):
    """The prompt (paper section 9.1, tables 6-8)."""

    template: str = Field(
        "generic", description="books, books_short, amazon, yelp, generic, or the path of a .jinja file"
    )
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
