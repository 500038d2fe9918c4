"""How many bytes a run takes, before it runs; the model's weights not counted."""

from optirag_core.engine.cost import ModelShape


def run_bytes(
    shape: ModelShape, *, step_tokens: int, step_pairs: int, max_tokens: int, window: int, bytes_per_value: int
) -> int:
    """The peak of a run: one step, and the hidden states of all else that is in flight.

    The peak of a step is the largest of three moments within one layer. Rotation of the queries, and then of the keys:
    the row before the step and before the layer, its norm, what is rotated four times, the rest once. MLP: the row
    before the step, before and after compaction and after attention, its norm, and gate, up and their product.

    Args:
        step_tokens: tokens of the largest row.
        step_pairs: its suffixes.
        max_tokens: tokens in flight.
        window: m.
    """
    rotated_queries = 3 * shape.width + 4 * shape.query_width + 2 * shape.key_width
    rotated_keys = 3 * shape.width + 2 * shape.query_width + 5 * shape.key_width
    mlp = 5 * shape.width + 3 * shape.mlp_width
    last_states = 2 * (window + 1) * step_pairs * shape.width
    waiting = (max_tokens - step_tokens) * shape.width
    return bytes_per_value * (step_tokens * max(rotated_queries, rotated_keys, mlp) + last_states + waiting)
