"""What a number of users asks of retriever, index and histories, which a night's prompts are looked up in."""

import re
from dataclasses import dataclass
from typing import Self

from optirag_core.config.data import IndexSettings
from optirag_core.planning import measured
from optirag_core.planning.measured import Measured
from optirag_core.retrieval.faiss_index import LEAST_PROBED, PROBED_SHARE

MEASURED_WIDTH = 64
"""Of the vectors that were measured: bytes and seconds of others are in proportion."""


@dataclass(frozen=True)
class IndexCost:
    """A FAISS index of U vectors of width D, on one core."""

    gib: float
    search_s: float  # of one query
    build_s: float
    rests_on: tuple[Measured, ...]

    @classmethod
    def of(cls, settings: IndexSettings, users: float, width: int) -> Self | None:
        """
        Returns:
            None for a kind of index that was not measured: other than Flat, IVF...,Flat and IVF...,PQ....
        """
        wide = width / MEASURED_WIDTH
        flat_s = users * wide / measured.FLAT_VECTORS_PER_S.value
        if settings.factory == "Flat":
            gib = users * wide * measured.FLAT_BYTES.value / 2**30
            return cls(gib, flat_s, 0.0, (measured.FLAT_VECTORS_PER_S, measured.FLAT_BYTES))
        found = re.fullmatch(r"IVF(\d+),(?:Flat|PQ(\d+))", settings.factory)
        if not found:
            return None
        lists, code = int(found[1]), found[2]
        visited = users * wide * _probed(settings, lists) / lists
        centroids_s = lists * wide / measured.FLAT_VECTORS_PER_S.value
        if code:
            size = measured.PQ_BYTES.value - 32 + int(code)  # 32 codes were measured
            rate, build = measured.PQ_VECTORS_PER_S, measured.PQ_BUILD_S
        else:
            size, rate, build = wide * measured.IVF_BYTES.value, measured.IVF_VECTORS_PER_S, measured.IVF_BUILD_S
        return cls(
            users * size / 2**30, centroids_s + visited / rate.value, users * lists * wide * build.value,
            (rate, build, measured.PQ_BYTES if code else measured.IVF_BYTES),
        )  # fmt: skip


def _probed(settings: IndexSettings, lists: int) -> int:
    found = re.search(r"nprobe=(\d+)", settings.search_parameters or "")
    return min(int(found[1]) if found else max(LEAST_PROBED, round(lists * PROBED_SHARE)), lists)


@dataclass(frozen=True)
class Lookups:
    """Everything that a node which builds prompts keeps a copy of, and what makes it."""

    users: float
    interactions_per_user: float
    width: int  # D
    index: IndexCost | None

    @property
    def interactions(self) -> float:
        return self.users * self.interactions_per_user

    @property
    def histories_gib(self) -> float:
        """Histories, ids and profiles, mapped: one copy of a node's memory where all of it is asked for."""
        held = self.interactions * measured.HISTORY_BYTES.value + self.users * measured.USER_BYTES.value
        return held / 2**30

    @property
    def vectors_gib(self) -> float:
        return self.users * self.width * 4 / 2**30

    @property
    def gib(self) -> float:
        """Of a node."""
        return self.histories_gib + self.vectors_gib + (self.index.gib if self.index else 0.0)

    @property
    def prepare_s(self) -> float:
        return self.users * measured.PREPARE_S_PER_USER.value

    @property
    def retriever_gib(self) -> float:
        """Of one worker that trains the retriever alone."""
        return self.interactions * measured.GRAPH_BYTES.value / 2**30

    @property
    def epoch_s(self) -> float:
        return self.interactions * measured.EPOCH_S.value
