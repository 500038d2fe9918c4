"""AutoInt (arXiv:1810.11921): self-attention between a pair's vectors.

Shapes: B pairs, N vectors of a pair, D width of a vector, H heads, K width of a head.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize

_NUM_HEADS = 2  # as in the paper's experiments


class InteractingLayer(nn.Module):
    """Multi-head self-attention with a residual; its scores are plain inner products, not scaled by the width.

    Source: arXiv:1810.11921, equations 5-8.
    """

    def __init__(self, dim: int, head_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.residual = (
            nn.Linear(dim, num_heads * head_dim, bias=False) for _ in range(4)
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, H * K]."""
        query, key, value = (self._heads(project(vectors)) for project in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # [B, H, N, K]
        return F.relu(attended.transpose(1, 2).flatten(2) + self.residual(vectors))

    def _heads(self, projected: Tensor) -> Tensor:
        """[B, N, H * K] -> [B, H, N, K]."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AutoInt(nn.Module):
    """Interacting layers beside an MLP: the paper's AutoInt+. A head is as wide as an embedding."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        dims = [size.embedding_dim, *[_NUM_HEADS * size.embedding_dim] * size.num_layers]
        self.layers = nn.Sequential(
            *(InteractingLayer(dim, size.embedding_dim, _NUM_HEADS) for dim in dims[: size.num_layers])
        )
        self.attention_output = nn.Linear(self.embedding.num_vectors * dims[-1], 1)
        self.deep = mlp(self.embedding.num_vectors * size.embedding_dim, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        vectors = self.embedding(batch)  # [B, N, D]
        attended = self.layers(vectors)  # [B, N, D] -> [B, N, H * K]
        return (self.attention_output(attended.flatten(1)) + self.deep(vectors.flatten(1))).squeeze(-1)
