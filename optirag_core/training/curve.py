"""The losses of a training's steps: what its report draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NUM_POINTS = 100
"""As many as a small plot shows."""


@dataclass
class Curve:
    """Grows while the training runs, and is part of its checkpoints."""

    losses: list[float] = field(default_factory=list)  # of every step
    epoch_start: int = 0  # steps before the epoch that runs

    def add(self, loss: float) -> float:
        """Note a step's loss; return the mean over the epoch so far."""
        self.losses.append(loss)
        epoch = self.losses[self.epoch_start :]
        return math.fsum(epoch) / len(epoch)

    def end_epoch(self) -> None:
        self.epoch_start = len(self.losses)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.losses, self.epoch_start = list(values["losses"]), values["epoch_start"]

    def points(self, epochs: Sequence[Mapping[str, float | None]] = ()) -> dict[str, list[list[float]]]:
        """What an artifact keeps: (step, loss) as means over up to `NUM_POINTS` equal parts, and each validation.

        Args:
            epochs: the `step` and `validation_loss` of those that were validated.
        """
        size = max(1, math.ceil(len(self.losses) / NUM_POINTS))
        parts = [self.losses[start : start + size] for start in range(0, len(self.losses), size)]
        steps = [min((number + 1) * size, len(self.losses)) for number in range(len(parts))]
        means = [math.fsum(part) / len(part) for part in parts]
        return {
            "loss": [list(point) for point in zip(steps, means, strict=True)],
            "validation_loss": values_of(epochs, "validation_loss"),
        }


def values_of(epochs: Sequence[Mapping[str, float | None]], name: str) -> list[list[float]]:
    """(step, value) of each epoch that has this value."""
    points = ((epoch["step"], epoch[name]) for epoch in epochs)
    return [[step, value] for step, value in points if step is not None and value is not None]
