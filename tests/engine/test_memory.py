"""Freed memory that stays."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from optirag_core.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(30):  # until the heap has a place for it
    torch.ones(8 << 20)  # 32 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_kept_memory_is_not_asked_for_again():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, way], check=True, capture_output=True, text=True).stdout)
        for way in ("keep", "default")
    )

    assert kept < 100 < 10_000 < given_back  # pages of 4 KiB: 8,192 an array
