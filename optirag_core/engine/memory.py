"""How many bytes a step takes, before it runs."""

from optirag_core.engine.cost import ModelShape


def state_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """Hidden states that wait between layers."""
    return tokens * shape.width * bytes_per_value


def step_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """The peak within one layer over a row of so many tokens, waiting rows not counted.

    The larger of its two halves: attention holds the row, its norm, queries, keys and values before and after their
    rotation and what the rotation makes on the way; the MLP holds the row twice, gate, up and their product.
    """
    attention = 4 * shape.width + 4 * shape.query_width + 3 * shape.key_width
    mlp = 4 * shape.width + 3 * shape.mlp_width
    return tokens * max(attention, mlp) * bytes_per_value
