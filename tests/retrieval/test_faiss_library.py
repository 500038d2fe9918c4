import subprocess
import sys
from importlib import metadata

import pyarrow as pa
import pytest
import torch

from optirag_core.config.data import IndexSettings
from optirag_core.errors import ConfigError
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.index import UserIndex


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these builds of FAISS are installed."""

    def pretend(*builds):
        def distribution(name):
            if name not in builds:
                raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "distribution", distribution)
        load_faiss.cache_clear()

    yield pretend
    load_faiss.cache_clear()


def build():
    return UserIndex.build(pa.array(["a", "b"]), torch.eye(2), IndexSettings())


def test_two_builds_are_refused(installed):
    installed("faiss-cpu", "faiss-gpu")
    with pytest.raises(ConfigError, match="faiss-cpu and faiss-gpu are both installed"):
        build()


def test_no_build_is_refused(installed):
    installed()
    with pytest.raises(ConfigError, match=r"optirag\[cpu\]"):
        build()


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss-gpu"])
def test_one_build_is_enough(installed, name):
    installed(name)
    assert [neighbour.user_id for neighbour in build().similar("a", 1)] == ["b"]


def test_core_imports_faiss_only_when_needed():
    code = "import sys, optirag_core.retrieval.index; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
