"""User groups -> p(yes) and exit layer of every candidate: packed prefill that stops where it may.

    numbers = scorer.add(groups)            # validated, sliced, queued
    while not scorer.is_finished:
        for group in scorer.step():         # one row to its next exit head
            group.number, group.scores

Shapes: R pairs of a row, L exit layers, m window.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.cost import ModelShape, packed_cost
from optirag_core.engine.decoder import Decoder, Flight, OpenLayer
from optirag_core.engine.figures import CallFigures, Scored
from optirag_core.engine.groups import UserGroup, check_lengths
from optirag_core.engine.heads import ExitHeads, evidence_of, p_yes
from optirag_core.engine.inflight import GroupInFlight, GroupsInFlight, ScoredGroup, Verdict
from optirag_core.engine.layout import Pair, parts_of
from optirag_core.engine.loading import context_length
from optirag_core.engine.policy import ExitPolicy, stable_at
from optirag_core.engine.scheduler import DepthQueues
from optirag_core.engine.states import LastStates, window_layers
from optirag_core.engine.trace import Trace
from optirag_core.errors import ConfigError, OptiragError

log = logging.getLogger(__name__)
OPENED_ABOVE = 1 / 8
"""Of the pairs that come to a head, the share that stops there above which its layer is opened. That costs every pair
its last token's part of the layer, and a layer's kernel calls; it saves 5 / 6 of the layer for a pair that stops."""


class Scorer:
    """Scores user groups with a decoder of `transformers` and its exit heads.

    `add` and `step` let groups in while others are in flight; `score` is that loop over groups known beforehand, and
    gives the same groups the same bits. A scorer serves one thread. Several may share a model, also with plain forward
    passes: none of them changes it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        heads: ExitHeads,
        policy: ExitPolicy,
        *,
        layers: Sequence[int] | None = None,
        max_tokens_in_flight: int = 16384,
        deterministic: bool = False,
        max_waits: int | None = None,
        compile_layers: bool = False,
    ) -> None:
        """
        Args:
            layers: the exit layers in use; default all that have a head.
            max_tokens_in_flight: prompt tokens that wait or run at a time; a step takes half of them. With
                `group_stop`, what waits for its own user group may exceed it.
            deterministic: no row holds more than one user group, so that its scores are the same bits whatever else
                is scored: matrix products of other numbers of rows have other last bits. A step halved for want of
                GPU memory is the exception.
            max_waits: steps that may pass over a row that waits for others to fill a step; the next one takes it.
                None: it waits until nothing else is left, for groups that are all known beforehand.
            compile_layers: run layers through torch.compile.

        Raises:
            ModelError: the decoder is not built like Llama's.
            ConfigError: the policy asks a head at depth 0, and there is none.
        """
        if policy.evidence_confidence is not None and not heads.num_features:
            raise ConfigError(
                f"exit_policy.evidence_confidence {policy.evidence_confidence} asks the head at depth 0, and these "
                "heads read no evidence: train heads that do, or set it to null"
            )
        self._decoder = Decoder(
            model, window=policy.window, frozen_prefix_after=policy.frozen_prefix_after, compiled=compile_layers
        )
        self.shape = ModelShape.of(model.config)
        self._heads = heads
        self.policy = policy
        used = heads.layers if layers is None else tuple(layers)
        self.exit_layers = () if policy.criterion == "none" else used
        self._max_tokens, self._max_waits, self._alone = max_tokens_in_flight, max_waits, deterministic
        self._context = context_length(model.config)
        self._numbers = itertools.count()
        self._came: Counter[int] = Counter()  # pairs by head, and those of them that stopped there
        self._stopped: Counter[int] = Counter()
        self._forget()

    @property
    def layers(self) -> tuple[int, ...]:
        """Where a pair may stop: 0 where its evidence may suffice, the exit layers in use, and the LLM's last."""
        first = () if self.policy.evidence_confidence is None else (0,)
        return (*first, *self.exit_layers, self.shape.num_layers)

    @property
    def num_features(self) -> int:
        """F of the evidence that the heads read; 0 for heads that read none."""
        return self._heads.num_features

    @property
    def is_finished(self) -> bool:
        """No group is in flight: `step` has handed back all that were added."""
        return not len(self._groups)

    @torch.inference_mode()
    def add(self, groups: Sequence[UserGroup]) -> list[int]:
        """Let groups in, behind those in flight.

        Returns:
            A number per group, with which `step` hands back its scores.

        Raises:
            ModelError: a prompt is empty, or longer than the LLM's context or a step, or evidence that the heads read
                is missing or of another width; no group has been let in then.
        """
        evidence = self._checked(groups)
        if self.is_finished:
            self._forget()  # the halvings of the groups before
        numbers = [next(self._numbers) for _ in groups]
        for number, group, known in zip(numbers, groups, evidence, strict=True):
            self._groups.open(number, parts_of(group, number, self._step_tokens), known)
            self._stop_on_evidence(number, known)
            self._queues.admit(self._groups.left(number))
        return numbers

    @torch.inference_mode()
    def step(self) -> list[ScoredGroup]:
        """Run one row to its next head.

        Returns:
            The groups of which all candidates are scored now; one without candidates with the step after its `add`.

        Raises:
            torch.OutOfMemoryError: even a halved step does not fit, or rows cannot be joined. As after any error in
                a step, the row is lost and no group is in flight any more.
        """
        with ExitStack() as on_error:
            on_error.callback(self._forget)  # whatever ends the row: its groups would never be finished
            if (work := self._queues.take()) is not None:
                flight = work if isinstance(work, Flight) else self._decoder.embed(work)
                self._run_in_memory(flight, self._queues, self._run)
            on_error.pop_all()
        return [self._scored(number, group) for number, group in self._groups.pop_scored().items()]

    def score(self, groups: Sequence[UserGroup], *, watch: Callable[[Mapping[int, int]], None] | None = None) -> Scored:
        """Score every candidate of every group.

        Args:
            watch: is told after each step how many prompt tokens wait, by depth.

        Raises:
            ModelError: as `add`; nothing has been computed then.
            OptiragError: groups are in flight: their rows would change, and `step` hands back their scores.
        """
        if not self.is_finished:
            raise OptiragError(
                f"score was called while {len(self._groups)} groups are in flight, and it takes the scorer for "
                "itself: step until is_finished, or add these groups as well"
            )
        started = time.perf_counter()
        self._came.clear()  # what was scored before would change the rows' last bits
        self._stopped.clear()
        numbers = self.add(groups)
        scored: dict[int, ScoredGroup] = {}
        while not self.is_finished:
            scored |= {group.number: group for group in self.step()}
            if watch:
                watch(self._queues.waiting_tokens())
        ordered = [scored[number] for number in numbers]
        seconds = time.perf_counter() - started
        figures = CallFigures.of(ordered, seconds=seconds, halvings=self._queues.halvings)
        return Scored([group.scores for group in ordered], figures)

    def trace(self, groups: Sequence[UserGroup]) -> Trace:
        """One full-depth pass with every head's view of every candidate, to replay; it touches no group in flight.

        Raises:
            ModelError: as `add`.
            ConfigError: the policy's window reaches below the embeddings.
        """
        num_features, window = self._heads.num_features, self.policy.window
        known = [evidence for evidence in self._checked(groups) if evidence is not None]
        evidence = torch.cat([torch.zeros(0, num_features), *known]) if num_features else None  # [all pairs, F]
        states = self.states(groups, window_layers(self._heads.layers, window, self.shape.num_layers))
        return Trace.of_states(states, self._heads, evidence, window=window)

    @torch.no_grad()  # heads are trained on these, and tensors of inference_mode could not be
    def states(self, groups: Sequence[UserGroup], layers: Sequence[int]) -> LastStates:
        """One pass that keeps the last tokens' hidden states of every candidate; it touches no group in flight.

        Args:
            layers: 1-based, the last included; 0 are the embeddings. Nothing runs deeper than the deepest of them.

        Raises:
            ModelError: a prompt is empty, or longer than the LLM's context or a step.
            ConfigError: the LLM has no such layers.
            torch.OutOfMemoryError: even a halved step does not fit.
        """
        check_lengths(groups, context=self._context, step_tokens=self._step_tokens)
        layers = sorted(set(layers))
        if not layers or layers[0] < 0 or layers[-1] > self.shape.num_layers:
            raise ConfigError(
                f"hidden states of layers {layers} were asked for, the LLM has 1 to {self.shape.num_layers}"
            )
        parts = [part for number, group in enumerate(groups) for part in parts_of(group, number, self._step_tokens)]
        queues = self._empty_queues()
        queues.admit(parts)
        rows: dict[Pair, Tensor] = {}  # [K, D]

        def keep(flight: Flight) -> None:
            rows.update(zip(flight.layout.pairs, self._last_states(flight, layers), strict=True))

        while (work := queues.take()) is not None:
            self._run_in_memory(work if isinstance(work, Flight) else self._decoder.embed(work), queues, keep)
        none = torch.zeros(0, len(layers), self.shape.width)
        return LastStates.of(
            parts, torch.stack([rows[pair] for pair in sorted(rows)]) if rows else none,
            layers=tuple(layers), sizes=tuple(len(group.suffixes) for group in groups), shape=self.shape,
            frozen_prefix_after=self.policy.frozen_prefix_after,
        )  # fmt: skip

    def _last_states(self, flight: Flight, layers: Sequence[int]) -> Tensor:
        """[R, K, D] of a row's pairs, fp32 on the CPU."""
        last = []
        for layer in layers:
            if layer == self.shape.num_layers:  # of the last layer only the last tokens are needed
                last.append(self._decoder.open_next(self._decoder.advance(flight, layer - 1)).last)
            else:
                flight = self._decoder.advance(flight, layer)
                last.append(flight.window[-1])
        return torch.stack(last, dim=1).float().cpu()

    def _checked(self, groups: Sequence[UserGroup]) -> list[Tensor | None]:
        """The evidence of groups that may be scored."""
        check_lengths(groups, context=self._context, step_tokens=self._step_tokens)
        return [evidence_of(group, self._heads.num_features) for group in groups]

    @property
    def _step_tokens(self) -> int:
        return self._max_tokens // 2

    def _forget(self) -> None:
        self._groups = GroupsInFlight(self.policy.group_stop)
        self._queues = self._empty_queues()

    def _empty_queues(self) -> DepthQueues:
        return DepthQueues(
            step_tokens=self._step_tokens, max_tokens=self._max_tokens, max_waits=self._max_waits, apart=self._alone
        )

    def _scored(self, number: int, group: GroupInFlight) -> ScoredGroup:
        scores = [group.scores[candidate] for candidate in range(group.size)]
        pairs = [
            (place, len(part.prefix), len(suffix), scores[candidate].exit_layer)
            for place, part in enumerate(group.parts)
            for suffix, candidate in zip(part.suffixes, part.candidates, strict=True)
        ]
        columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4).unbind(dim=1)
        cost = packed_cost(self.shape, *columns, frozen_prefix_after=self.policy.frozen_prefix_after)
        return ScoredGroup(number, scores, cost)

    def _stop_on_evidence(self, number: int, evidence: Tensor | None) -> None:
        """Score what the head at depth 0 stops of a user group [n, F]."""
        policy = self.policy.at_depth_0
        if policy is None:
            return
        logits = self._heads.on_evidence(0)(evidence)  # [n, 2]
        pairs = [Pair(number, candidate) for candidate in range(len(logits))]
        stable = stable_at(logits[:, None], policy).tolist()
        verdicts = self._groups.verdicts(pairs, stable)
        self._groups.record(pairs, p_yes(logits).tolist(), 0, stable, verdicts)

    def _run_in_memory(self, flight: Flight, queues: DepthQueues, run: Callable[[Flight], None]) -> None:
        """A row; where the GPU has no memory for it, its two halves are queued instead, once until all is finished."""
        splits = len(flight.layout.pairs) > 1
        if flight.layout.num_tokens <= queues.step_tokens or not splits:
            try:
                run(flight)
                return
            except torch.OutOfMemoryError:
                if queues.halvings or not splits:
                    raise
            queues.halve()  # out of the except clause: the error's traceback would keep the tensors
            torch.cuda.empty_cache()
            log.warning("out of GPU memory: going on with steps of %d tokens", queues.step_tokens)
        queues.put_back(flight.halves())

    def _run(self, flight: Flight) -> None:
        """One row to its next head: what stops there is scored, what does not is queued or held.

        It computes first and changes the scorer's state last: a row without memory runs again in halves.
        """
        layer = self._next_head(flight.depth)
        passed = self._pass(flight, layer)
        pairs = passed.layout.pairs
        logits, stable = self._read(passed, layer)
        verdicts = self._groups.verdicts(pairs, stable)
        goes_on = [
            not stops and verdicts[pair.user_group] is not Verdict.STOP
            for pair, stops in zip(pairs, stable, strict=True)
        ]
        moving, held = _apart(self._survivors(passed, goes_on), verdicts) if any(goes_on) else (None, {})
        self._groups.record(pairs, p_yes(logits).tolist(), layer, stable, verdicts)
        self._came[layer] += len(pairs)
        self._stopped[layer] += goes_on.count(False)
        self._queue(moving, held, verdicts)

    def _pass(self, flight: Flight, layer: int) -> Flight | OpenLayer:
        """A row through a layer with a head: whole where few of those before it stopped, else only what the head reads.

        A first row is opened: that costs less where none stops than passing it whole costs where all do.
        """
        came, stopped = self._came[layer], self._stopped[layer]
        few_stop = not self._alone and came > 0 and stopped <= OPENED_ABOVE * came
        if few_stop and layer < self.shape.num_layers:
            return self._decoder.advance(flight, layer)
        return self._decoder.open_next(self._decoder.advance(flight, layer - 1))

    def _survivors(self, passed: Flight | OpenLayer, alive: Sequence[bool]) -> Flight:
        """What goes on of a row, at least one pair [R], through the rest of an open layer."""
        if isinstance(passed, OpenLayer):
            return self._decoder.close(passed, alive)
        return passed if all(alive) else passed.keep(alive)

    def _read(self, passed: Flight | OpenLayer, layer: int) -> tuple[Tensor, list[bool]]:
        """[R, 2] logits of the head at a layer, and who is stable there; behind the LLM's own head all are."""
        evidence = self._groups.evidence(passed.layout.pairs)  # [R, F]
        if layer == self.shape.num_layers:
            return self._heads[layer](passed.window[-1], evidence), [True] * len(passed.layout.pairs)
        states = passed.window[-self.policy.window - 1 :]
        logits = self._heads[layer](torch.stack(states, dim=1), evidence)  # [R, m+1, 2]
        return logits[:, -1], stable_at(logits, self.policy).tolist()

    def _queue(self, moving: Flight | None, held: dict[int, Flight], verdicts: dict[int, Verdict]) -> None:
        for number, flight in held.items():
            self._queues.hold(number, flight)
        for number, verdict in verdicts.items():
            if verdict is Verdict.GO_ON:
                self._queues.release(number)
            elif verdict is Verdict.STOP:
                self._queues.drop(number)
        if moving:
            self._queues.put(moving)

    def _next_head(self, depth: int) -> int:
        """The 1-based layer of the next head behind a depth."""
        deeper = (layer for layer in self.exit_layers if layer > depth)
        return next(deeper, self.shape.num_layers)


def _apart(flight: Flight, verdicts: dict[int, Verdict]) -> tuple[Flight | None, dict[int, Flight]]:
    """A row's survivors that move on, and by user group those that wait."""
    owners = [pair.user_group for pair in flight.layout.pairs]
    waiting = [number for number in dict.fromkeys(owners) if verdicts[number] is Verdict.WAIT]
    if not waiting:
        return flight, {}
    held = {number: flight.keep([owner == number for owner in owners]) for number in waiting}
    moves = [owner not in held for owner in owners]
    return flight.keep(moves) if any(moves) else None, held
