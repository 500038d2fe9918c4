"""GRU4Rec (arXiv:1511.06939): what the user rated, read in its order.

The paper's network ranks all items as the next one. For a pair's probability its last state goes into an MLP, together
with the pair's fields, the candidate item among them.

Shapes: B pairs, F fields, L history entries, D embedding width.
"""

import torch
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies
from optirag_core.baselines.embedding import PairEmbedding
from optirag_core.baselines.mlp import mlp
from optirag_core.baselines.size import ModelSize


class Gru4Rec(nn.Module):
    """One layer of gated recurrent units (equations 2-5): the paper finds no gain in more."""

    def __init__(self, vocabularies: Vocabularies, size: ModelSize) -> None:
        super().__init__()
        self.embedding = PairEmbedding(vocabularies, size.embedding_dim)
        self.gru = nn.GRU(size.embedding_dim, size.embedding_dim, batch_first=True)
        self.deep = mlp(self.embedding.num_vectors * size.embedding_dim, size.hidden, dropout=size.dropout)

    def last_state(self, history: Tensor, lengths: Tensor) -> Tensor:
        """The state after the newest entry, zeros where there is none: [B, L, D], [B] -> [B, D].

        Padding stands at the end: the states before it know nothing of it.
        """
        states, _ = self.gru(history)
        first = torch.zeros_like(states[:, :1])
        return torch.cat([first, states], dim=1)[torch.arange(len(lengths), device=lengths.device), lengths]

    def forward(self, batch: Batch) -> Tensor:
        """Logits of "liked" [B]."""
        state = self.last_state(self.embedding.history(batch), batch.history_lengths)
        return self.deep(torch.cat([self.embedding.fields(batch).flatten(1), state], dim=1)).squeeze(-1)
