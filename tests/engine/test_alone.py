"""The engine and its benchmark on a machine with torch, transformers and pydantic only."""

import subprocess
import sys

ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "pyarrow", "faiss", "torch_geometric", "matplotlib", "boto3", "jinja2"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import benchmarks.engine
import optirag_core.engine.flex, optirag_core.engine.loading, optirag_core.engine.memory, optirag_core.engine.varlen
"""


def test_the_engine_needs_no_other_package():
    subprocess.run([sys.executable, "-c", ALONE], check=True)
