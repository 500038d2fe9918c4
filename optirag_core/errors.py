"""Every error that OptiRAG raises on purpose.

    OptiragError
    ├── ConfigError            a setting is unknown, out of bounds, or contradicts another
    ├── DataError              a raw file or table cannot be used
    │   └── MalformedLines     more lines are damaged than `dataset.max_malformed_share` allows
    ├── PromptError            a template, tokenizer or answer word breaks the prompt's contract
    │   └── PromptTooLong      a prompt exceeds `prompt.max_tokens` even at its shortest
    ├── ModelError             the LLM does not fit the settings (layers, context length, architecture)
    └── ArtifactError
        ├── ArtifactMissing    the workspace lacks an artifact that a job needs
        ├── ArtifactMismatch   an artifact was made from another parent than the one at hand
        └── ArtifactCorrupt    a file of an artifact differs from its manifest

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
