"""User groups -> p(yes) and exit layer of every candidate: one prefill, stopped at an exit layer where it may.

The plain form: every pair is a padded row of its own, and rows leave the batch when they exit.

Shapes: R rows (pairs) of a batch, T padded tokens, D model width, m window.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.criterion import Criterion, discrepancy, should_exit, window_values
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.heads import ExitHeads, lm_answer_head, p_yes
from optirag_core.errors import ModelError


@dataclass(frozen=True)
class ExitPolicy:
    """When a pair may stop (algorithm 2)."""

    criterion: Criterion
    window: int
    threshold: float


@dataclass(frozen=True)
class HeadView:
    """What one exit head sees of one pair at full depth."""

    layer: int
    score: float  # p(yes) of this head on h^(l)
    values: tuple[float, ...]  # m+1 tracked values, h^(l-m) first
    discrepancy: float  # |D - mean|
    exits: bool


class Scorer:
    """Scores user groups with a decoder of `transformers` and its exit heads."""

    def __init__(
        self,
        model: PreTrainedModel,
        heads: ExitHeads,
        policy: ExitPolicy,
        answer_ids: tuple[int, int],
        *,
        batch_size: int = 32,
    ) -> None:
        """
        Args:
            answer_ids: vocabulary ids of yes and no.
            batch_size: pairs per padded batch.
        """
        self._decoder = model.model
        self._heads = heads
        self._final_head = lm_answer_head(model, answer_ids)
        self._policy = policy
        self._batch_size = batch_size
        self._max_tokens = model.config.max_position_embeddings
        self._num_layers = model.config.num_hidden_layers

    @torch.inference_mode()
    def score(self, groups: Sequence[UserGroup]) -> list[list[PairScore]]:
        """Score every candidate of every group.

        Returns:
            One list per group, in its suffixes' order.

        Raises:
            ModelError: a prompt is longer than the LLM's context; nothing has been computed then.
        """
        prompts = [[*group.prefix, *suffix] for group in groups for suffix in group.suffixes]
        self._check_lengths(prompts)
        by_length = sorted(range(len(prompts)), key=lambda pair: len(prompts[pair]))  # less padding; a stable order
        scores: dict[int, PairScore] = {}
        for start in range(0, len(by_length), self._batch_size):
            pairs = by_length[start : start + self._batch_size]
            scores |= zip(pairs, self._score_batch([prompts[pair] for pair in pairs]), strict=True)
        flat = iter(scores[pair] for pair in range(len(prompts)))
        return [[next(flat) for _ in group.suffixes] for group in groups]

    @torch.inference_mode()
    def trace(self, group: UserGroup) -> list[list[HeadView]]:
        """Every head's view of every candidate, shallow to deep, whether or not an earlier one would have stopped."""
        return [self._views([*group.prefix, *suffix]) for suffix in group.suffixes]

    def _views(self, prompt: Sequence[int]) -> list[HeadView]:
        ids, last = pad([prompt])
        hidden = self._decoder.embed_tokens(ids.to(self._decoder.device))  # [1, T, D]
        rotary = self._decoder.rotary_emb(hidden, position_ids=torch.arange(ids.shape[1], device=hidden.device)[None])
        states = [_last_states(hidden, last)]  # N+1 x [1, D]
        for layer in self._decoder.layers:
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            states.append(_last_states(hidden, last))
        policy = self._policy
        views = []
        for layer in self._heads.layers:
            logits = self._heads[layer](torch.stack(states[layer - policy.window : layer + 1], dim=1))  # [1, m+1, 2]
            values = window_values(logits, policy.criterion)
            stable = should_exit(values, policy.threshold, policy.criterion)
            figures = p_yes(logits)[0, -1].item(), tuple(values[0].tolist()), discrepancy(values).item(), stable.item()
            views.append(HeadView(layer, *figures))
        return views

    def _score_batch(self, prompts: Sequence[Sequence[int]]) -> list[PairScore]:
        results: list[PairScore | None] = [None] * len(prompts)
        alive = torch.arange(len(prompts))  # [R] index into results
        ids, last = pad(prompts)  # [R, T], [R]
        hidden = self._decoder.embed_tokens(ids.to(self._decoder.device))  # [R, T, D]
        positions = torch.arange(ids.shape[1], device=hidden.device)[None]
        rotary = self._decoder.rotary_emb(hidden, position_ids=positions)
        window = deque([_last_states(hidden, last)], maxlen=self._policy.window + 1)  # m+1 x [R, D]
        for number, layer in enumerate(self._decoder.layers, start=1):
            # Padding stands behind the prompt, so the causal mask alone keeps it from being seen.
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            window.append(_last_states(hidden, last))
            if number not in self._heads.layers:
                continue
            logits = self._heads[number](torch.stack(list(window), dim=1))  # [R, m+1, 2]
            values = window_values(logits, self._policy.criterion)
            exits = should_exit(values, self._policy.threshold, self._policy.criterion).cpu()  # [R]
            _record(results, alive[exits], logits[exits.to(logits.device), -1], number)
            keep = ~exits
            alive, last = alive[keep], last[keep]  # [R] -> [R']
            if not len(alive):
                break
            on_device = keep.to(hidden.device)
            hidden = hidden[on_device]  # [R, T, D] -> [R', T, D]
            window = deque((states[on_device] for states in window), maxlen=window.maxlen)
        else:
            _record(results, alive, self._final_head(window[-1]), self._num_layers)
        return results

    def _check_lengths(self, prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts), default=0)
        if longest > self._max_tokens:
            raise ModelError(
                f"a prompt has {longest} tokens, the LLM's context is {self._max_tokens}: lower prompt.max_tokens"
            )


def pad(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids [R, T] and the index of each row's last token [R]."""
    rows = [torch.as_tensor(prompt, dtype=torch.int64) for prompt in prompts]
    last = torch.tensor([len(row) - 1 for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), last


def _last_states(hidden: Tensor, last: Tensor) -> Tensor:
    rows = torch.arange(len(last), device=hidden.device)
    return hidden[rows, last.to(hidden.device)]  # [R, T, D] -> [R, D]


def _record(results: list[PairScore | None], pairs: Tensor, logits: Tensor, layer: int) -> None:
    for pair, score in zip(pairs.tolist(), p_yes(logits).tolist(), strict=True):
        results[pair] = PairScore(score=score, exit_layer=layer)
