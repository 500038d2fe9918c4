"""Which of the weights that a training passes are kept: those of the epoch with the least validation loss."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Weights = dict[str, Tensor]


class BestWeights:
    """The epochs' losses, and a copy of the weights at the least of them.

    Attributes:
        history: per epoch its losses, as they were offered.
        epoch: of the weights that are kept, from 0; None: those before the first epoch.
        loss: theirs; None where there is no validation.
        weights: theirs, whole, on rank 0.
    """

    def __init__(self, gather: Callable[[], Weights], loss: float | None = None) -> None:
        """
        Args:
            gather: the weights as they are; all workers call it together.
            loss: of the weights as they are: where it is given they stay, unless later ones are better.
        """
        self._gather = gather
        self.history: list[Mapping[str, float | None]] = []
        self.epoch: int | None = None
        self.loss = loss
        self.weights: Weights = gather() if loss is not None else {}

    def offer(self, losses: Mapping[str, float | None]) -> None:
        """Take a copy of the weights as they are now if their `validation_loss` is below all before, or there is none.

        Args:
            losses: of an epoch, the same for all workers.
        """
        loss = losses["validation_loss"]
        if loss is None or self.loss is None or loss < self.loss:
            self.epoch, self.loss, self.weights = len(self.history), loss, self._gather()
        self.history.append(dict(losses))

    @property
    def num_since(self) -> int:
        """Epochs after the one whose weights are kept."""
        return len(self.history) - (0 if self.epoch is None else self.epoch + 1)

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """What a checkpoint keeps: tensors, and JSON values."""
        return self.weights, {"history": self.history, "epoch": self.epoch, "loss": self.loss}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.weights, self.history = dict(tensors), list(values["history"])
        self.epoch, self.loss = values["epoch"], values["loss"]
