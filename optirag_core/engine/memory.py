"""How the process keeps the memory that it frees."""

import ctypes


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
