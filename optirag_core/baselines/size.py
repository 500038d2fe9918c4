"""How large a CTR model is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSize:
    """What the models have in common; one without layers or without an MLP leaves that number unread."""

    embedding_dim: int
    hidden: tuple[int, ...]  # widths of the MLP's hidden layers; () leaves it linear
    num_layers: int  # of crosses, attention or interaction
    dropout: float  # share of the hidden values set to zero in training
