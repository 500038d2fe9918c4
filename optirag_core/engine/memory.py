"""How many bytes a run takes, before it runs (the model's weights not counted), and how the process keeps them."""

import ctypes

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


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next layer; for processes that score on CPU.

    By default glibc gives large arrays back to the kernel as they are freed, and every layer pays for fresh pages:
    3 to 8 % of a run's time. Kept, memory stays at the peak of the run.

    Returns:
        False where the C library has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    return bool(mallopt(m_mmap_max, 0)) and bool(mallopt(m_trim_threshold, 2**31 - 1))
