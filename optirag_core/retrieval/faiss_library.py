"""The FAISS library, imported on first use and only when exactly one build of it is installed."""

from functools import cache
from importlib import metadata
from types import ModuleType

from optirag_core.errors import ConfigError

BUILDS = ("faiss-cpu", "faiss-gpu")
"""Distributions that own the same `faiss/` folder: the second one installed overwrites the first without a word."""


@cache
def load_faiss() -> ModuleType:
    """Import faiss.

    Raises:
        ConfigError: two builds are installed, or none.
    """
    installed = [build for build in BUILDS if _is_installed(build)]
    if len(installed) > 1:
        raise ConfigError(
            f"{' and '.join(installed)} are both installed and overwrite each other's files: uninstall both, then "
            "install one (pip install 'optirag[cpu]' or 'optirag[gpu]')"
        )
    if not installed:
        raise ConfigError("FAISS is not installed: pip install 'optirag[cpu]' (or 'optirag[gpu]' on a GPU machine)")
    import faiss

    return faiss


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
