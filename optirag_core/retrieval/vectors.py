"""Ids and their vectors on disk: `<noun>s.arrow` and `<noun>_embeddings.safetensors`.

Shape legend: `N` users or items, `D` embedding width.
"""

from pathlib import Path

import pyarrow as pa
from safetensors.torch import load_file, save_file
from torch import Tensor

from optirag_core.data.mapped import one_batch, open_mapped, write_mapped
from optirag_core.data.rows import Noun
from optirag_core.errors import ArtifactCorrupt


def save_vectors(folder: Path, noun: Noun, ids: pa.Array, embeddings: Tensor) -> None:
    """Write ids and vectors; row n of the vectors belongs to id n.

    Args:
        folder: an existing local folder.
        ids: [N].
        embeddings: [N, D] float32.
    """
    write_mapped(one_batch(pa.table({f"{noun}_id": ids})), folder / f"{noun}s.arrow")
    save_file({"embeddings": embeddings.contiguous()}, folder / f"{noun}_embeddings.safetensors")


def load_vectors(folder: Path, noun: Noun) -> tuple[pa.LargeStringArray, Tensor]:
    """Map what `save_vectors` wrote; all processes of a machine share its memory.

    Returns:
        ids [N], embeddings [N, D] float32.

    Raises:
        ArtifactCorrupt: the two files have different numbers of rows.
    """
    ids = open_mapped(folder / f"{noun}s.arrow")[f"{noun}_id"]
    embeddings = load_file(folder / f"{noun}_embeddings.safetensors")["embeddings"]
    if len(ids) != len(embeddings):
        raise ArtifactCorrupt(
            f"{folder}: {len(ids):,} {noun} ids but {len(embeddings):,} vectors; run train_retriever again"
        )
    return ids, embeddings
