"""Every error that OptiRAG raises on purpose.

    OptiragError
    ├── ConfigError            a setting is unknown, out of bounds, or contradicts another
    ├── DataError              a raw file or table cannot be used
    │   └── MalformedLines     more lines are damaged than `dataset.max_malformed_share` allows
    ├── PromptError            a template, tokenizer or answer word breaks the prompt's contract
    │   └── PromptTooLong      a prompt exceeds `prompt.max_tokens` even at its shortest
    ├── ModelError             the LLM does not fit the settings (layers, context length, architecture)
    ├── ArtifactError
    │   ├── ArtifactMissing    the workspace lacks an artifact that a job needs
    │   ├── ArtifactMismatch   an artifact was made from another parent than the one at hand
    │   └── ArtifactCorrupt    a file of an artifact differs from its manifest
    ├── ErasureUnfinished      another user's erasure was begun and has to be finished first
    ├── StorageError           the place that holds the files cannot be reached, or refuses
    │   └── StorageFull        it has no space left
    └── RunError               a scoring run cannot go on
        ├── RunMismatch        it was begun with other inputs or settings
        ├── RunOwned           another driver is at it
        ├── RunIncomplete      pairs are missing, there twice, or too many of them rejected: nothing is committed
        ├── RunHeld            it differs too much from the run before: it is committed, and not the newest
        ├── ShardFailed        a shard ended its process again and again
        ├── RunStalled         no shard was finished for `run.stall_timeout_s`
        └── ResourcesMissing   the cluster lacks what the settings ask for

A message says what came, what was expected, and what to do. The jobs print it as one line and exit with code 2.
"""


class OptiragError(Exception):
    """Base of all errors that a user can act on."""


class ConfigError(OptiragError):
    """A setting is unknown, out of bounds, or contradicts another."""


class DataError(OptiragError):
    """A raw file or table cannot be used."""


class MalformedLines(DataError):
    """More lines are damaged than the settings allow."""


class PromptError(OptiragError):
    """A template, tokenizer or answer word breaks the prompt's contract."""


class PromptTooLong(PromptError):
    """A prompt exceeds the limit even at its shortest."""


class ModelError(OptiragError):
    """The LLM does not fit the settings."""


class ArtifactError(OptiragError):
    """An artifact cannot be used."""


class ArtifactMissing(ArtifactError):
    """The workspace lacks an artifact that a job needs."""


class ArtifactMismatch(ArtifactError):
    """An artifact was made from another parent than the one at hand."""


class ArtifactCorrupt(ArtifactError):
    """A file of an artifact differs from its manifest."""


class ErasureUnfinished(OptiragError):
    """Another user's erasure was begun and not finished."""


class StorageError(OptiragError):
    """The place that holds the files cannot be reached, or refuses."""


class StorageFull(StorageError):
    """The place that holds the files has no space left."""


class RunError(OptiragError):
    """A scoring run cannot go on."""


class RunMismatch(RunError):
    """The run was begun with other inputs or settings."""


class RunOwned(RunError):
    """Another driver is at the run."""


class RunIncomplete(RunError):
    """Pairs are missing, there twice, or too many of them rejected."""


class RunHeld(RunError):
    """The run is committed and differs too much from the one before to become the newest."""


class ShardFailed(RunError):
    """A shard ended its process again and again."""


class RunStalled(RunError):
    """No shard was finished in time."""


class ResourcesMissing(RunError):
    """The cluster lacks what the settings ask for."""
