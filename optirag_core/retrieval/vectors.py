"""Ids and their vectors on disk: `<noun>s.arrow`, `<noun>_embeddings.safetensors` and `item_fold_in.safetensors`.

Shape legend: `N` users or items, `D` embedding width.
"""

from pathlib import Path

import pyarrow as pa
from safetensors.torch import load_file, save_file
from torch import Tensor

from optirag_core.data.mapped import one_batch, open_mapped, write_mapped
from optirag_core.data.rows import Noun
from optirag_core.errors import ArtifactCorrupt

FOLD_IN_FILE = "item_fold_in.safetensors"


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


def save_fold_in(folder: Path, vectors: Tensor) -> None:
    """Write `retrieval.gcn.item_fold_in` [I, D] beside the items' vectors."""
    save_file({"fold_in": vectors.contiguous()}, folder / FOLD_IN_FILE)


def load_fold_in(folder: Path) -> Tensor | None:
    """Map what `save_fold_in` wrote: [I, D] float32; None where the artifact has none."""
    path = folder / FOLD_IN_FILE
    return load_file(path)["fold_in"] if path.is_file() else None
