"""Ids and their vectors on disk: `<noun>s.parquet` and `<noun>_embeddings.safetensors`.

Shape legend: `N` users or items, `D` embedding width.
"""

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

from optirag_core.errors import ArtifactCorrupt

Noun = Literal["user", "item"]


def save_vectors(folder: Path, noun: Noun, ids: pa.StringArray, embeddings: Tensor) -> None:
    """Write ids and vectors; row n of the vectors belongs to id n.

    Args:
        folder: an existing local folder.
        ids: [N].
        embeddings: [N, D] float32.
    """
    pq.write_table(pa.table({f"{noun}_id": ids}), folder / f"{noun}s.parquet", write_page_checksum=True)
    save_file({"embeddings": embeddings.contiguous()}, folder / f"{noun}_embeddings.safetensors")


def load_vectors(folder: Path, noun: Noun) -> tuple[pa.StringArray, Tensor]:
    """Read what `save_vectors` wrote.

    Returns:
        ids [N], embeddings [N, D] float32.

    Raises:
        ArtifactCorrupt: the two files have different numbers of rows.
    """
    table = pq.read_table(folder / f"{noun}s.parquet", page_checksum_verification=True)
    embeddings = load_file(folder / f"{noun}_embeddings.safetensors")["embeddings"]
    if table.num_rows != len(embeddings):
        raise ArtifactCorrupt(
            f"{folder}: {table.num_rows:,} {noun} ids but {len(embeddings):,} vectors; run train_retriever again"
        )
    return table[f"{noun}_id"].combine_chunks(), embeddings
