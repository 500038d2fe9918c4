"""What every CTR model computes with: one vector per field, and one of the history.

Shapes: B pairs, F fields, L history entries, D embedding width.
"""

import torch
from torch import Tensor, nn

from optirag_core.baselines.batch import Batch, Vocabularies

_INITIAL_STD = 0.01  # small: an id that training rarely meets then says little


class PairEmbedding(nn.Module):
    """A table of vectors per field and one of the answers; a history entry is its item's vector plus its answer's."""

    def __init__(self, vocabularies: Vocabularies, dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(_table(size, dim) for size in vocabularies.fields)
        self.answers = _table(vocabularies.num_answers, dim)
        self.num_vectors = len(vocabularies.fields) + 1

    def fields(self, batch: Batch) -> Tensor:
        """[B, F, D]."""
        return torch.stack([table(ids) for table, ids in zip(self.tables, batch.fields.unbind(1), strict=True)], dim=1)

    def history(self, batch: Batch) -> Tensor:
        """[B, L, D], zeros where the history is padded."""
        entries = self.tables[1](batch.history_items) + self.answers(batch.history_answers)
        return entries * _is_entry(batch).unsqueeze(-1)

    def forward(self, batch: Batch) -> Tensor:
        """The fields, then the history's mean (zeros where it is empty): [B, F + 1, D]."""
        mean = self.history(batch).sum(dim=1) / batch.history_lengths.clamp(min=1).unsqueeze(-1)
        return torch.cat([self.fields(batch), mean.unsqueeze(1)], dim=1)


def _table(size: int, dim: int) -> nn.Embedding:
    """Unknown begins at zero: it moves where training meets it, and says nothing where only later pairs do."""
    table = nn.Embedding(size, dim)
    nn.init.normal_(table.weight, std=_INITIAL_STD)
    nn.init.zeros_(table.weight[0])
    return table


def _is_entry(batch: Batch) -> Tensor:
    positions = torch.arange(batch.history_items.shape[1], device=batch.history_items.device)
    return positions < batch.history_lengths.unsqueeze(1)  # [B, L]
