"""The engine and its benchmark import torch, transformers and pydantic, and nothing that a GPU box may lack."""

import subprocess
import sys

ALONE = """
import sys
import benchmarks.engine
import optirag_core.engine.flex, optirag_core.engine.loading, optirag_core.engine.memory, optirag_core.engine.varlen
print(*sorted({"ray", "pyarrow", "faiss", "torch_geometric", "matplotlib"} & sys.modules.keys()))
"""


def test_the_engine_needs_no_other_package():
    finished = subprocess.run([sys.executable, "-c", ALONE], check=False, capture_output=True, text=True)

    assert (finished.returncode, finished.stdout.strip()) == (0, ""), finished.stderr
