"""What a user would run without the engine: plain `transformers`, one pass per prompt or per user's prefix.

Shapes: R rows (pairs) of a batch, T padded tokens, D model width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from optirag_core.engine.groups import UserGroup


def padded(
    model: PreTrainedModel, groups: Sequence[UserGroup], answer_ids: tuple[int, int], *, batch_size: int = 32
) -> list[float]:
    """p(yes) of all pairs in order: every prompt a row of its own, padded to its batch's longest."""
    prompts = [[*group.prefix, *suffix] for group in groups for suffix in group.suffixes]
    scores: list[float] = []
    for start in range(0, len(prompts), batch_size):
        ids, last = _rows(prompts[start : start + batch_size], model)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # [R, T, D]
        scores += _p_yes(model, hidden, last, answer_ids)
    return scores


def prefix_cached(model: PreTrainedModel, groups: Sequence[UserGroup], answer_ids: tuple[int, int]) -> list[float]:
    """p(yes) of all pairs in order: each user's prefix once, its cache repeated for a batch of the suffixes."""
    scores: list[float] = []
    for group in groups:
        cache = DynamicCache(config=model.config)
        model.model(input_ids=torch.tensor([group.prefix], device=model.device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(group.suffixes))
        ids, last = _rows(group.suffixes, model)
        hidden = model.model(input_ids=ids, past_key_values=cache).last_hidden_state  # [R, T, D]
        scores += _p_yes(model, hidden, last, answer_ids)
    return scores


def _rows(texts: Sequence[Sequence[int]], model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Ids [R, T], padded behind their ends, where causal attention sees nothing of it; last places [R]."""
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    return ids.to(model.device), torch.tensor([len(text) - 1 for text in texts], device=model.device)


def _p_yes(model: PreTrainedModel, hidden: Tensor, last: Tensor, answer_ids: tuple[int, int]) -> list[float]:
    answers = hidden[torch.arange(len(last), device=last.device), last]  # [R, D]
    yes, no = model.lm_head(answers)[:, list(answer_ids)].float().unbind(-1)
    return torch.sigmoid(yes - no).tolist()
