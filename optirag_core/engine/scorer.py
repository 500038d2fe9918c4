"""User groups -> p(yes) and exit layer of every candidate: packed prefill that stops where it may.

Shapes: R pairs of a row, L exit layers, m window.
"""

import logging
import time
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.attention import cascade_attention
from optirag_core.engine.cost import Cost, ModelShape, group_cost
from optirag_core.engine.decoder import Decoder, Flight
from optirag_core.engine.figures import RunFigures
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.heads import ExitHeads, lm_answer_head, p_yes
from optirag_core.engine.layout import PromptPart, parts_of
from optirag_core.engine.loading import context_length
from optirag_core.engine.policy import ExitPolicy, exits_at
from optirag_core.engine.scheduler import DepthQueues
from optirag_core.engine.trace import Trace
from optirag_core.errors import ModelError

log = logging.getLogger(__name__)
ROW_BUCKET = 64
"""Matrix products of 1 or 3 rows give other last bits than those of 8 or more; of a multiple of 64 no tile is cut."""


class Scorer:
    """Scores user groups with a decoder of `transformers` and its exit heads."""

    last_run: RunFigures | None = None
    """Of the latest call of `score`."""

    def __init__(
        self,
        model: PreTrainedModel,
        heads: ExitHeads,
        policy: ExitPolicy,
        answer_ids: tuple[int, int],
        *,
        max_tokens_in_flight: int = 16384,
        deterministic: bool = False,
        compile_layers: bool = False,
    ) -> None:
        """
        Args:
            answer_ids: vocabulary ids of yes and no.
            max_tokens_in_flight: prompt tokens that wait or run at a time; a step takes half of them.
            deterministic: fill rows up to a multiple of ROW_BUCKET, so that matrix products use the same kernels
                whatever else is in the row.
            compile_layers: run layers through torch.compile.

        Raises:
            ModelError: the decoder is not built like Llama's.
        """
        self._decoder = Decoder(
            model, window=policy.window, frozen_prefix_after=policy.frozen_prefix_after,
            bucket=ROW_BUCKET if deterministic else 1, compiled=compile_layers,
        )  # fmt: skip
        self._shape = ModelShape.of(model.config)
        self._heads = heads
        self._final_head = lm_answer_head(model, answer_ids)
        self.policy = policy
        self._max_tokens = max_tokens_in_flight
        self._context = context_length(model.config)

    @torch.inference_mode()
    def score(self, groups: Sequence[UserGroup]) -> list[list[PairScore]]:
        """Score every candidate of every group.

        Returns:
            One list per group, in its suffixes' order. `last_run` has the figures of the run.

        Raises:
            ModelError: a prompt is empty, or longer than the LLM's context or a step; nothing has been computed then.
        """
        started = time.perf_counter()
        parts = self._parts(groups)
        queues = DepthQueues(parts, step_tokens=self._max_tokens // 2, max_tokens=self._max_tokens)
        results: dict[int, PairScore] = {}
        with cascade_attention(self._decoder.config):
            while (work := queues.take()) is not None:
                flight = work if isinstance(work, Flight) else self._decoder.embed(work)
                if survivors := self._step_in_memory(flight, queues, results):
                    queues.put(survivors)
        pairs = (results[pair] for pair in range(len(results)))
        scores = [list(islice(pairs, len(group.suffixes))) for group in groups]
        cost = sum((self._cost(part, results) for part in parts), Cost())
        seconds = time.perf_counter() - started
        self.last_run = RunFigures.of(scores, cost, seconds=seconds, halvings=queues.halvings)
        return scores

    @torch.inference_mode()
    def trace(self, groups: Sequence[UserGroup]) -> Trace:
        """One full-depth pass with every head's view of every candidate, for `replay`.

        Raises:
            ModelError: as `score`.
        """
        parts = self._parts(groups)
        queues = DepthQueues(parts, step_tokens=self._max_tokens // 2, max_tokens=self._max_tokens)
        logits, final = [], []
        with cascade_attention(self._decoder.config):
            while (work := queues.take()) is not None:
                flight, views = self._decoder.embed(work), []
                for layer in self._heads.layers:
                    flight = self._decoder.advance(flight, layer)
                    views.append(self._window_logits(layer, flight.window))
                flight = self._decoder.advance(flight, self._shape.num_layers - 1)
                logits.append(torch.stack(views, dim=1).cpu())  # [R, L, m+1, 2]
                final.append(self._final_head(self._decoder.open_next(flight).last).cpu())
        return self._assembled(groups, parts, logits, final)

    def _assembled(
        self, groups: Sequence[UserGroup], parts: Sequence[PromptPart], logits: list[Tensor], final: list[Tensor]
    ) -> Trace:
        order = torch.tensor([pair for part in parts for pair in part.pairs], dtype=torch.int64).argsort()
        members = [(part, len(suffix)) for part in parts for suffix in part.suffixes]
        columns = [[part.number, len(part.prefix), tokens] for part, tokens in members]
        lengths = torch.tensor(columns, dtype=torch.int64).reshape(-1, 3)[order]  # [R, 3]
        none = torch.zeros(0, len(self._heads.layers), self.policy.window + 1, 2)
        return Trace(
            self._shape, self._heads.layers, self.policy.frozen_prefix_after,
            tuple(len(group.suffixes) for group in groups), *lengths.unbind(1),
            torch.cat([none, *logits])[order], torch.cat([none[:, 0, 0], *final])[order],
        )  # fmt: skip

    def _parts(self, groups: Sequence[UserGroup]) -> list[PromptPart]:
        step = self._max_tokens // 2
        lengths = {len(group.prefix) + len(suffix) for group in groups for suffix in group.suffixes}
        longest, shortest = max(lengths, default=1), min(lengths, default=1)
        if shortest == 0:
            raise ModelError("a prompt has no tokens: neither a prefix nor a suffix was given")
        if longest > self._context:
            raise ModelError(
                f"a prompt has {longest} tokens, the LLM's context is {self._context}: lower prompt.max_tokens"
            )
        if longest > step:
            raise ModelError(
                f"a prompt has {longest} tokens, a step takes {step}: raise scoring.max_tokens_in_flight to "
                f"{2 * longest} or more, or lower prompt.max_tokens"
            )
        return list(parts_of(groups, step))

    def _cost(self, part: PromptPart, results: dict[int, PairScore]) -> Cost:
        return group_cost(
            self._shape,
            len(part.prefix),
            [len(suffix) for suffix in part.suffixes],
            [results[pair].exit_layer for pair in part.pairs],
            frozen_prefix_after=self.policy.frozen_prefix_after,
        )

    def _step_in_memory(self, flight: Flight, queues: DepthQueues, results: dict[int, PairScore]) -> Flight | None:
        """A step; where the GPU has no memory for it, its two halves are queued instead, once in a run."""
        splits = len(flight.layout.pairs) > 1
        if flight.layout.num_tokens <= queues.step_tokens or not splits:
            try:
                return self._step(flight, results)
            except torch.OutOfMemoryError:
                if queues.halvings or not splits:
                    raise
            queues.halve()  # out of the except clause: the error's traceback would keep the tensors
            torch.cuda.empty_cache()
            log.warning("out of GPU memory: going on with steps of %d tokens", queues.step_tokens)
        queues.put_back(flight.halves())
        return None

    def _step(self, flight: Flight, results: dict[int, PairScore]) -> Flight | None:
        """One row to its next head: scores of what stops there, the row of what does not."""
        number = self._next_head(flight.depth)
        opened = self._decoder.open_next(self._decoder.advance(flight, number - 1))
        layout = opened.flight.layout
        if number == self._shape.num_layers:
            _record(results, layout.pairs, self._final_head(opened.last), number)
            return None
        logits = self._window_logits(number, (*opened.flight.window, opened.last))
        stops, forced = exits_at(logits, layout.parts, self.policy)
        _record(results, layout.pairs, logits[:, -1], number, stops.tolist(), forced.tolist())
        return self._decoder.close(opened, (~stops).tolist())

    def _next_head(self, depth: int) -> int:
        """The 1-based layer of the next head after so many layers."""
        deeper = (layer for layer in self._heads.layers if layer > depth and self.policy.criterion != "none")
        return next(deeper, self._shape.num_layers)

    def _window_logits(self, layer: int, states: Sequence[Tensor]) -> Tensor:
        """[R, m+1, 2]."""
        return self._heads[layer](torch.stack(states[-self.policy.window - 1 :], dim=1))


def _record(
    results: dict[int, PairScore], pairs: Sequence[int], logits: Tensor, layer: int,
    stops: Sequence[bool] | None = None, forced: Sequence[bool] | None = None,
) -> None:  # fmt: skip
    count = len(pairs)
    rows = zip(pairs, p_yes(logits).tolist(), stops or [True] * count, forced or [False] * count, strict=True)
    for pair, score, stopped, was_forced in rows:
        if stopped:
            results[pair] = PairScore(score, layer, was_forced)
