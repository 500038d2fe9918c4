"""Everything that the report and the terminal say about a run: its quality beside the floors', and what it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from optirag_core.errors import DataError
from optirag_core.evaluation.bootstrap import Difference, bootstrap_auc_difference
from optirag_core.evaluation.labels import LabelledScores
from optirag_core.evaluation.metrics import BinaryMetrics, binary_metrics
from optirag_core.evaluation.quality import Quality, quality
from optirag_core.evaluation.scored_run import ScoredRun
from optirag_core.evaluation.worth import Worth


@dataclass(frozen=True)
class Exits:
    """Labelled pairs by the layer at which they were decided."""

    mean_exit_layer: float
    num_layers: int  # of the LLM
    histogram: dict[int, int]  # every layer where a pair may stop -> pairs


@dataclass(frozen=True)
class ColdStart:
    """The model on pairs whose user has no similar users."""

    pairs: int
    metrics: BinaryMetrics | None  # None without such pairs


@dataclass(frozen=True)
class Summary:
    """The model beside its floors, which are the registered predictors, on the pairs that have a label."""

    model: Quality
    floors: dict[str, Quality]
    over_floors: dict[str, Difference | None]  # the model's AUC less each floor's; None where there is no AUC
    worth: Worth | None  # None without hidden states of the test split
    cold_start: ColdStart
    exits: Exits
    run: ScoredRun

    @property
    def best_floor(self) -> str:
        """Name of the floor with the highest AUC, the first one where there are none."""
        return max(self.floors, key=lambda name: self.floors[name].auc or 0.0)

    @property
    def beaten_floors(self) -> list[str]:
        """Names of the floors whose AUC is below the model's; none where there is no AUC."""
        auc = self.model.auc
        floors = {name: floor.auc for name, floor in self.floors.items() if floor.auc is not None}
        return [] if auc is None else [name for name, floor in floors.items() if floor < auc]

    def to_json(self) -> bytes:
        """Layers become texts; the rest keeps its type."""
        return TypeAdapter(Summary).dump_json(self, indent=2)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """
        Raises:
            DataError: it is no summary that `to_json` wrote.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(
                f"a report's summary cannot be read: {place}: {first['msg']}; another version wrote it, or it was "
                "edited: remove that report and evaluate again"
            ) from None


def summarize(
    labelled: LabelledScores,
    floors: Mapping[str, np.ndarray],
    run: ScoredRun,
    *,
    exit_layers: Sequence[int],
    num_layers: int,
    seed: int,
    worth: Worth | None = None,
) -> Summary:
    """Measure a run beside the floors.

    Args:
        floors: name -> scores of the same pairs (`predictions`).
        run: what the whole run did.
        exit_layers: 1-based layers where a pair may have stopped, beside the last one; 0 where the evidence alone may
            have decided.
        num_layers: layers of the LLM.
        seed: of the bootstraps, which draw whole users.
        worth: what the LLM is worth, where that was measured.

    Raises:
        DataError: a score, label or exit layer is not as described.
    """
    labels, scores, users = labelled.labels, labelled.scores, labelled.users
    return Summary(
        model=quality(labels, scores, users, seed=seed),
        floors={name: quality(labels, floor, users, seed=seed) for name, floor in floors.items()},
        over_floors={
            name: bootstrap_auc_difference(labels, scores, floor, seed, groups=users) for name, floor in floors.items()
        },
        worth=worth,
        cold_start=_cold_start(labelled),
        exits=_exits(labelled.exit_layers, exit_layers, num_layers),
        run=run,
    )


def _exits(layers: np.ndarray, exit_layers: Sequence[int], num_layers: int) -> Exits:
    counted = dict(zip(*(values.tolist() for values in np.unique(layers, return_counts=True)), strict=True))
    allowed = sorted({*exit_layers, num_layers})
    unknown = [layer for layer in counted if layer not in allowed]
    if unknown:
        raise DataError(
            f"scored pairs: exit_layer {unknown[0]} is none of {', '.join(map(str, allowed))}: evaluate with the "
            "settings and the LLM of the run"
        )
    return Exits(float(layers.mean()), num_layers, {layer: counted.get(layer, 0) for layer in allowed})


def _cold_start(labelled: LabelledScores) -> ColdStart:
    cold = labelled.cold_start
    metrics = binary_metrics(labelled.labels[cold], labelled.scores[cold]) if cold.any() else None
    return ColdStart(int(cold.sum()), metrics)
