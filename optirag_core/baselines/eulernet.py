"""EulerNet (arXiv:2304.10711): interactions of learned orders, as sums in the exponent of complex numbers.

Shapes: B pairs, N vectors of a pair, D embedding width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.size import ModelSize

_SMALLEST_SQUARE = 1e-8  # of a modulus: its logarithm is taken


class EulerLayer(nn.Module):
    """Complex vectors z_j -> z'_k = prod_j z_j^(order_kj) * bias_k + ReLU of a linear map.

    In polar form the product is linear: log-moduli and phases are each summed with the orders as weights, which may be
    any real numbers. The linear map reads real and imaginary parts with the same weights. The orders begin as the
    identity: every vector is itself.

    Source: arXiv:2304.10711, the Euler interaction layer: explicit and implicit interactions.
    """

    def __init__(self, num_vectors: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.orders = nn.Parameter(torch.eye(num_vectors))  # of output k in its row
        self.log_modulus_bias = nn.Parameter(torch.zeros(num_vectors, dim))
        self.phase_bias = nn.Parameter(torch.zeros(num_vectors, dim))
        self.linear = nn.Linear(num_vectors * dim, num_vectors * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts [B, N, D] -> the same."""
        modulus, phase = self.explicit(real, imaginary)
        return modulus * phase.cos() + self._implicit(real), modulus * phase.sin() + self._implicit(imaginary)

    def explicit(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Moduli and phases [B, N, D] of the products."""
        log_modulus = (real**2 + imaginary**2 + _SMALLEST_SQUARE).log() / 2
        phase = torch.atan2(imaginary, real)
        return (
            (self.orders @ self.dropout(log_modulus) + self.log_modulus_bias).exp(),
            self.orders @ self.dropout(phase) + self.phase_bias,
        )

    def _implicit(self, part: Tensor) -> Tensor:
        return F.relu(self.linear(self.dropout(part).flatten(1))).view_as(part)


class EulerNet(nn.Module):
    """Embeddings as phases, a learned modulus per field, Euler layers, a regression on both parts. It has no MLP."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        num_vectors = self.embedding.num_vectors
        self.modulus = nn.Parameter(torch.ones(num_vectors, 1))
        self.layers = nn.ModuleList(
            EulerLayer(num_vectors, size.embedding_dim, size.dropout) for _ in range(size.num_layers)
        )
        self.output = nn.Linear(num_vectors * size.embedding_dim, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        phase = self.embedding(batch)  # [B, N, D]
        real, imaginary = self.modulus * phase.cos(), self.modulus * phase.sin()
        for layer in self.layers:
            real, imaginary = layer(real, imaginary)
        return self.output((real + imaginary).flatten(1)).squeeze(-1)  # one weight for both parts of a number
