"""DCNv2, the deep and cross network (arXiv:2008.13535): crosses of growing degree beside an MLP.

Shapes: B pairs, W width of all vectors of a pair together.
"""

from typing import ClassVar

from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize


class CrossLayer(nn.Module):
    """x_(l+1) = x_0 * (W x_l + b) + x_l.

    Source: arXiv:2008.13535, equation 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, first: Tensor, crossed: Tensor) -> Tensor:
        """x_0 and x_l [B, W] -> x_(l+1) [B, W]."""
        return first * self.linear(crossed) + crossed


class Dcnv2(nn.Module):
    """Its parallel structure: one weight each for the crosses and for the MLP's last hidden layer."""

    cross_layer: ClassVar[type[nn.Module]] = CrossLayer

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        width = self.embedding.num_vectors * size.embedding_dim
        self.crosses = nn.ModuleList(self.cross_layer(width) for _ in range(size.num_layers))
        self.cross_output = nn.Linear(width, 1)
        self.deep = mlp(width, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        first = crossed = self.embedding(batch).flatten(1)  # [B, W]
        for layer in self.crosses:
            crossed = layer(first, crossed)
        return (self.cross_output(crossed) + self.deep(first)).squeeze(-1)
