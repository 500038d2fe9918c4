"""DeepFM (arXiv:1703.04247): a factorization machine beside an MLP, on the same vectors.

Shapes: B pairs, N vectors of a pair, D embedding width.
"""

from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize


def second_order(vectors: Tensor) -> Tensor:
    """The sum over all pairs i < j of <v_i, v_j>, without forming the pairs.

    Source: arXiv:1703.04247, equation 2, second term; the square of the sum less the sum of squares (Rendle, ICDM 2010,
    lemma 3.1).

    Args:
        vectors: [B, N, D].

    Returns:
        [B].
    """
    return ((vectors.sum(dim=1) ** 2 - (vectors**2).sum(dim=1)) / 2).sum(dim=-1)


class DeepFm(nn.Module):
    """y = y_FM + y_DNN (equation 1)."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.weights = PairEmbedding(vocabularies, 1)  # first order: a weight per id
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        self.deep = mlp(self.embedding.num_vectors * size.embedding_dim, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        vectors = self.embedding(batch)  # [B, N, D]
        first_order = self.weights(batch).sum(dim=(1, 2))
        return first_order + second_order(vectors) + self.deep(vectors.flatten(1)).squeeze(-1)
