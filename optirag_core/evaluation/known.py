"""What predictors may know: the interactions outside of the test split, and the items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.dataset import Dataset


@dataclass(frozen=True)
class Known:
    """A data set without its test split."""

    interactions: pa.Table  # INTERACTIONS outside of the test split
    items: pa.Table  # ITEMS and further columns
    attributes: Sequence[str] = ()  # columns of items that evidence counts

    @classmethod
    def of(cls, dataset: Dataset, attributes: Sequence[str]) -> Self:
        rows = dataset.interactions
        return cls(rows.filter(pc.not_equal(rows["split"], "test")), dataset.items, attributes)
