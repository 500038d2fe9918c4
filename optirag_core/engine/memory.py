"""How many bytes a step takes, before it runs."""

from optirag_core.engine.cost import ModelShape


def state_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """Hidden states that wait between layers."""
    return tokens * shape.width * bytes_per_value


def step_bytes(shape: ModelShape, tokens: int, bytes_per_value: int) -> int:
    """The peak within one layer over a row of so many tokens, waiting rows not counted.

    The larger of three moments. Rotation of the queries, and then of the keys: the row before the step and before the
    layer, its norm, what is rotated four times, the rest once. MLP: the row before the step, before and after
    compaction and after attention, its norm, and gate, up and their product.
    """
    queries = 3 * shape.width + 4 * shape.query_width + 2 * shape.key_width
    keys = 3 * shape.width + 2 * shape.query_width + 5 * shape.key_width
    mlp = 5 * shape.width + 3 * shape.mlp_width
    return tokens * max(queries, keys, mlp) * bytes_per_value
