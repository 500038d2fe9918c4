"""GDCN, the gated deep cross network (arXiv:2311.04635): a cross layer whose crosses pass a gate.

Shapes: B pairs, W width of all vectors of a pair together.
"""

from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize


class GatedCrossLayer(nn.Module):
    """c_(l+1) = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l.

    Source: arXiv:2311.04635, the gated cross layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross = nn.Linear(width, width)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, first: Tensor, crossed: Tensor) -> Tensor:
        """c_0 and c_l [B, W] -> c_(l+1) [B, W]."""
        return first * self.cross(crossed) * self.gate(crossed).sigmoid() + crossed


class Gdcn(nn.Module):
    """The paper's GDCN-P, crosses and MLP in parallel: beside DCNv2 the gate is the only difference."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        width = self.embedding.num_vectors * size.embedding_dim
        self.crosses = nn.ModuleList(GatedCrossLayer(width) for _ in range(size.num_layers))
        self.cross_output = nn.Linear(width, 1)
        self.deep = mlp(width, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        first = crossed = self.embedding(batch).flatten(1)  # [B, W]
        for layer in self.crosses:
            crossed = layer(first, crossed)
        return (self.cross_output(crossed) + self.deep(first)).squeeze(-1)
