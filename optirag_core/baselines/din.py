"""DIN, the deep interest network (arXiv:1706.06978): the candidate item decides which of the history counts.

Shapes: B pairs, F fields, L history entries, D embedding width.
"""

import torch
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize

_ACTIVATION_UNITS = 36  # figure 2


class ActivationUnit(nn.Module):
    """a(e, v): how much an entry e of the history counts for a candidate v.

    An MLP reads both, their difference and their product. The paper has an outer product for the last two, and its
    authors' code these; ReLU stands for its Dice, with which pairs of a batch see each other. No softmax over the
    history: the sum of the weights is how strong the interest is.

    Source: arXiv:1706.06978, section 4.3, equation 3.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = mlp(4 * dim, (_ACTIVATION_UNITS,))

    def forward(self, candidate: Tensor, history: Tensor) -> Tensor:
        """[B, D], [B, L, D] -> weights [B, L]."""
        query = candidate.unsqueeze(1).expand_as(history)
        return self.weight(torch.cat([query, history, query - history, query * history], dim=-1)).squeeze(-1)


class Din(nn.Module):
    """The fields and the weighted sum of the history, into an MLP."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        self.attention = ActivationUnit(size.embedding_dim)
        self.deep = mlp(self.embedding.num_vectors * size.embedding_dim, size.hidden, dropout=size.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        fields, history = self.embedding.fields(batch), self.embedding.history(batch)
        weights = self.attention(fields[:, 1], history)  # [B, L]
        interest = (weights.unsqueeze(-1) * history).sum(dim=1)  # [B, D]; padding is zeros in `history`
        return self.deep(torch.cat([fields.flatten(1), interest], dim=1)).squeeze(-1)
