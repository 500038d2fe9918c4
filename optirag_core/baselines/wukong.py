"""Wukong (arXiv:2403.02545): factorization machines in layers, each on the vectors that the one before made.

Shapes: B pairs, N vectors of a pair, D embedding width.
"""

import torch
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize


class FactorizationMachineBlock(nn.Module):
    """FMB(X) = reshape(MLP(LN(flatten(X X^T)))): vectors made of all inner products.

    The paper narrows X X^T by a projection where there are hundreds of vectors; a pair here has a handful.

    Source: arXiv:2403.02545, the factorization machine block.
    """

    def __init__(self, num_inputs: int, num_outputs: int, size: ModelSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_inputs**2)
        self.mlp = mlp(num_inputs**2, size.hidden, num_outputs * size.embedding_dim, dropout=size.dropout)
        self.num_outputs = num_outputs

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> [B, num_outputs, D]."""
        products = vectors @ vectors.transpose(1, 2)  # [B, N, N]
        return self.mlp(self.norm(products.flatten(1))).unflatten(-1, (self.num_outputs, -1))


class LinearCompressionBlock(nn.Module):
    """LCB(X) = W X: linear combinations of the vectors, of the orders they have.

    Source: arXiv:2403.02545, the linear compress block.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> [B, num_outputs, D]."""
        return self.linear(vectors.transpose(1, 2)).transpose(1, 2)


class InteractionLayer(nn.Module):
    """X_(i+1) = LN(concat(FMB(X_i), LCB(X_i)) + X_i); each block makes half of the vectors.

    Source: arXiv:2403.02545, the interaction stack.
    """

    def __init__(self, num_vectors: int, size: ModelSize) -> None:
        super().__init__()
        self.interactions = FactorizationMachineBlock(num_vectors, num_vectors - num_vectors // 2, size)
        self.compression = LinearCompressionBlock(num_vectors, num_vectors // 2)
        self.norm = nn.LayerNorm(size.embedding_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self.norm(torch.cat([self.interactions(vectors), self.compression(vectors)], dim=1) + vectors)


class WuKong(nn.Module):
    """A stack of interaction layers, then an MLP."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        num_vectors = self.embedding.num_vectors
        self.layers = nn.Sequential(*(InteractionLayer(num_vectors, size) for _ in range(size.num_layers)))
        self.deep = mlp(num_vectors * size.embedding_dim, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        return self.deep(self.layers(self.embedding(batch)).flatten(1)).squeeze(-1)
