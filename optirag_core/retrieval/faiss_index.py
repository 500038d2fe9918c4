"""A FAISS index made from vectors: trained on a sample of them, then filled in chunks, on the CPU or on a GPU.

Shape legend: `U` users, `M` users that the index holds, `D` embedding width.
"""

from typing import Any

import numpy as np

from optirag_core.config.data import IndexSettings
from optirag_core.errors import ConfigError
from optirag_core.retrieval.faiss_library import load_faiss

VECTORS_PER_CHUNK = 65_536
"""Added at a time: 16 MiB at D = 64, instead of a second copy of all vectors."""

TRAINED_PER_LIST = 64
"""Vectors that k-means sees per list of an IVF index; FAISS asks for 39 or more."""

LEAST_TRAINED = 65_536
"""256 vectors, of which FAISS uses no more, for each of the 256 codewords of a PQ."""

PROBED_SHARE = 1 / 16
"""Share of an IVF index's lists that a query visits, unless `index.search_parameters` says otherwise.

Finds 98 % of the true 4 neighbours of BookCrossing's 56,509 users in IVF512; FAISS's default of one list finds 61 %.
"""

LEAST_PROBED = 8
"""Lists that a query visits of an index with few, where the nearest users often lie in the next list."""


def filled_index(vectors: np.ndarray, rows: np.ndarray, settings: IndexSettings, *, seed: int = 0) -> Any:
    """A FAISS index of some of the vectors; entry m is that of `rows[m]`.

    Args:
        vectors: [U, D] float32, each of length 1; may be mapped from a file.
        rows: [M], ascending.
        seed: draws the vectors that train the index, where not all do.

    Raises:
        ConfigError: FAISS is missing or installed twice, sees no GPU, or cannot make such an index of these vectors.
    """
    require_gpu(settings)
    faiss = load_faiss()
    try:
        index = faiss.index_factory(vectors.shape[1], settings.factory, faiss.METRIC_INNER_PRODUCT)
        sample = _sample(faiss, index, rows, seed)
        _leave_out_polysemous_training(faiss, index)
        _set_search_parameters(faiss, index, settings.search_parameters)
        if settings.gpu:
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.train(vectors[sample])
        for start in range(0, len(rows), VECTORS_PER_CHUNK):
            index.add(vectors[rows[start : start + VECTORS_PER_CHUNK]])
        index.search(vectors[:1], 1)  # some search parameters are refused only here
    except RuntimeError as error:  # what FAISS raises for an unknown string and for too few vectors alike
        raise ConfigError(
            f"index.factory {settings.factory!r} with index.search_parameters {settings.search_parameters!r} does not "
            f"fit {len(rows):,} users of width {vectors.shape[1]}{' on a GPU' if settings.gpu else ''}: use Flat, or "
            f"one with fewer lists; FAISS says: {str(error).splitlines()[0][-200:]}"
        ) from None
    return faiss.index_gpu_to_cpu(index) if settings.gpu else index


def require_gpu(settings: IndexSettings) -> None:
    """
    Raises:
        ConfigError: `index.gpu` is set, but FAISS sees no GPU.
    """
    if settings.gpu and load_faiss().get_num_gpus() == 0:
        raise ConfigError(
            "index.gpu is true, but FAISS sees no GPU: install 'optirag[gpu]' in place of 'optirag[cpu]' and run "
            "train_retriever where a GPU is visible, or set index.gpu to false"
        )


def _sample(faiss: Any, index: Any, rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows [M'] whose vectors train the index: all, or a sample where there are many."""
    ivf = faiss.try_extract_index_ivf(index)
    size = max(LEAST_TRAINED, TRAINED_PER_LIST * ivf.nlist) if ivf is not None else LEAST_TRAINED
    if len(rows) <= size:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))


def _leave_out_polysemous_training(faiss: Any, index: Any) -> None:
    """It takes 1.6 s per byte of a PQ's codes, for a filter by Hamming distance that no search here uses."""
    coded = faiss.downcast_index(faiss.try_extract_index_ivf(index) or index)
    if hasattr(coded, "do_polysemous_training"):
        coded.do_polysemous_training = False


def _set_search_parameters(faiss: Any, index: Any, given: str | None) -> None:
    """They are part of the index: FAISS writes them into its file."""
    ivf = faiss.try_extract_index_ivf(index)
    if given is not None:
        faiss.ParameterSpace().set_index_parameters(index, given)
    elif ivf is not None:
        ivf.nprobe = min(max(LEAST_PROBED, round(ivf.nlist * PROBED_SHARE)), ivf.nlist)
