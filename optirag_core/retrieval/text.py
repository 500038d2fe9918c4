"""Texts -> vectors: the mean of a language model's last hidden states. The comparator of the GCN's embeddings.

Shape legend: `N` texts, `B` texts of a batch, `T` padded tokens, `D` width of the encoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optirag_core.config.data import TextRetrieverSettings
from optirag_core.engine.loading import context_length, load_encoder
from optirag_core.errors import ConfigError, DataError
from optirag_core.training.packing import plan_batches


class TextEncoder:
    """A decoder under its causal mask, or a model that looks both ways; nothing of it is trained."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, batch_tokens: int
    ) -> None:
        """
        Args:
            model: without a head; on the device that it shall compute on.
            max_tokens: of a text; the rest is cut off.
            batch_tokens: padded tokens of a batch, B x T.

        Raises:
            ConfigError: the model reads no texts of this length.
        """
        longest = min(context_length(model.config), tokenizer.model_max_length)
        if max_tokens > longest:
            raise ConfigError(
                f"retriever.text.max_tokens {max_tokens} exceeds the encoder's context of {longest} tokens: lower it"
            )
        tokenizer.truncation_side = "right"  # whatever it came with: what a text begins with is read
        self.model = model
        self._tokenizer, self._max_tokens, self._batch_tokens = tokenizer, max_tokens, batch_tokens

    @classmethod
    def load(cls, settings: TextRetrieverSettings, place: Path, *, device: torch.device = torch.device("cpu")) -> Self:
        """
        Args:
            place: where `settings.encoder` lies on this machine.

        Raises:
            ModelError: no encoder can be loaded from there.
            ConfigError: as for `TextEncoder`.
        """
        model, tokenizer = load_encoder(place, dtype=settings.dtype)
        return cls(model.to(device), tokenizer, max_tokens=settings.max_tokens, batch_tokens=settings.batch_tokens)

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids that are read of each text, with what the tokenizer puts around it."""
        return self._tokenizer(
            list(texts), truncation=True, max_length=self._max_tokens,
            return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]  # fmt: skip

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1: [N, D] float32, on the CPU.

        Texts of similar length share a batch; a text's vector does not depend on the others, but for rounding.

        Raises:
            DataError: a text has no token.
        """
        ids = self.tokens(texts)
        if not all(ids):
            raise DataError(
                f"retriever.text: text {ids.index([]):,} of {len(ids):,} has no token, so no mean state: let the "
                "template's item and entry say something of every item"
            )
        vectors = torch.empty(len(ids), self.width)
        generator = torch.Generator().manual_seed(0)
        for rows in plan_batches([len(each) for each in ids], self._batch_tokens, generator):
            vectors[rows] = self._encode_batch([ids[row] for row in rows]).cpu()
        return vectors

    @torch.inference_mode()
    def _encode_batch(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Padding stands on the right, where a causal mask already hides it from the text: [B, D]."""
        lengths = torch.tensor([len(each) for each in ids])
        padded = pad_sequence([torch.tensor(each) for each in ids], batch_first=True).to(self.model.device)  # [B, T]
        mask = (torch.arange(padded.size(1)) < lengths[:, None]).to(self.model.device)  # [B, T]
        hidden = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state  # [B, T, D]
        return F.normalize(mean_state(hidden, mask), dim=-1)


def mean_state(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are not padding.

    Source: arXiv:1908.10084, section 3, the MEAN strategy.

    Args:
        hidden: [B, T, D].
        mask: [B, T] bool, True for a text's own tokens, of which each text has one.

    Returns:
        [B, D] float32.
    """
    return torch.masked.mean(hidden, dim=1, dtype=torch.float32, mask=mask[..., None])
