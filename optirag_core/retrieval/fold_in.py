"""A user's vector from what the user has done until now, without training.

Shape legend: `I` items, `D` embedding width.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from torch import Tensor

from optirag_core.data.mapped import SortedIds


class FoldIn:
    """Item vectors of `gcn.item_fold_in`."""

    def __init__(self, item_ids: pa.LargeStringArray, vectors: Tensor) -> None:
        """
        Args:
            item_ids: [I], ascending.
            vectors: [I, D] float32.
        """
        self._row, self._vectors = SortedIds(item_ids).row, vectors.numpy()

    def vector(self, item_ids: Collection[str]) -> np.ndarray | None:
        """The vector of a user with these interactions.

        Args:
            item_ids: distinct; one without training interactions has no vector and says nothing.

        Returns:
            [D] float32 of length 1; None where no item says anything.
        """
        rows = sorted(row for row in map(self._row, item_ids) if row >= 0)  # whatever the order, the same bits
        summed = self._vectors[rows].sum(axis=0, dtype=np.float64)  # [D]
        length = np.linalg.norm(summed)
        return (summed / length).astype(np.float32) if length > 0 else None
