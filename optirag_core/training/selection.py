"""Which of the weights that a training run passes are kept: those with the least loss on validation samples."""

from collections.abc import Iterable

import torch


class BestWeights:
    """A copy of the trained weights at their least loss so far; of a LoRA that is the adapters alone."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], loss: float) -> None:
        """
        Args:
            loss: of the weights as they are: they stay where no later ones are better.
        """
        self._parameters = list(parameters)
        self._keep(loss)

    def offer(self, loss: float) -> None:
        """Take a copy of the weights as they are now if their loss is below all before."""
        if loss < self.loss:
            self._keep(loss)

    def restore(self) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for parameter, copy in zip(self._parameters, self._copies, strict=True):
                parameter.copy_(copy)

    def _keep(self, loss: float) -> None:
        self.loss = loss
        self._copies = [parameter.detach().clone() for parameter in self._parameters]
