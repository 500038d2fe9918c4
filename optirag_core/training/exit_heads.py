"""Training of the answer heads on the frozen LLM's hidden states (paper section 5.2): a logistic problem per layer.

Shapes: A answers, D model width, F evidence features.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from optirag_core.config.exits import ExitHeadsSettings
from optirag_core.engine.heads import AnswerHead, ExitHeads
from optirag_core.errors import DataError
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.curve import Curve
from optirag_core.training.exit_features import ExitFeatures
from optirag_core.training.loop import Step, optimize
from optirag_core.training.state import Training
from optirag_core.training.workers import Workers, parallelize

LOSSES = "losses"
"""Name of the validation losses among a head's weights in a checkpoint."""


@dataclass(frozen=True)
class HeadSamples:
    """Answers, with what every head reads of them."""

    states: Mapping[int, Tensor]  # layer -> [A, D] h^(l) of the answers' last tokens
    evidence: Tensor | None  # [A, F] standardised
    labels: Tensor  # [A] float32
    users: Tensor | None = None  # [A] number of each answer's user; None: every answer is another's

    @classmethod
    def of(cls, features: ExitFeatures, heads: ExitHeads) -> Self:
        """What these heads read.

        Raises:
            ConfigError: states of one of their layers were not kept.
        """
        states = {layer: features.at(layer) for layer in (*heads.layers, heads.num_layers)}
        users = torch.from_numpy(np.unique(features.users, return_inverse=True)[1])
        return cls(states, features.evidence if heads.num_features else None, features.labels, users)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        return self._each(lambda tensor: tensor.to(device))

    def take(self, rows: slice | Tensor) -> Self:
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        states = {layer: change(states) for layer, states in self.states.items()}
        evidence, users = (None if each is None else change(each) for each in (self.evidence, self.users))
        return type(self)(states, evidence, change(self.labels), users)


@dataclass(frozen=True)
class Vocabulary:
    """The LM head, whose other rows the answer words are compared with by `loss: vocabulary`."""

    weight: Tensor  # [V, D], frozen
    answer_ids: tuple[int, int]  # of yes and no


def train_exit_heads(
    heads: ExitHeads,
    samples: HeadSamples,
    settings: ExitHeadsSettings,
    *,
    seed: int,
    vocabulary: Vocabulary | None = None,
    validation: HeadSamples | None = None,
    workers: Workers = Workers(),
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Mapping[str, Any]:
    """Minimise the answers' cross-entropy of every head, with lambda_l = lambda_0 * exp(-beta * depth_l).

    depth_l is the head's index from shallow to deep. Without evidence the exit heads start as plain copies and the
    LLM's own head stays as it is: the paper's form. With evidence all of them are trained, and start where they lie
    best between what the copy says and what the evidence says; the head at depth 0 is the evidence's regression and
    stays. With `single_head` the deepest head alone is trained, and the others are its copies.

    Args:
        vocabulary: for `loss: vocabulary`; epochs are chosen by the answers' loss all the same.
        samples: all workers' answers, the same for all of them; each takes its share.
        validation: answers on which is chosen (`_Kept`) between the evidence alone, the head at depth 0, a head's start
            and its epochs. Rank 0 alone looks at it. Without it the last epoch stays.
        on_epoch: called after each epoch with its number, from 1, and the last step's loss summed over the heads.

    Returns:
        The losses, summed over the heads (`Curve.points`).

    Raises:
        DataError: there is no answer to learn from.
        ConfigError: the loss is not finite any more.
    """
    if not len(samples):
        raise DataError("no training sample for the exit heads: raise dataset.split.tune_share or heads_share")
    trained = _trained(heads, settings)
    kept = _Kept(heads, trained, validation if workers.rank == 0 else None)
    _offer_starts(heads, trained, samples, kept)
    curve = Curve()
    if trained:
        module = parallelize(_HeadsLoss(heads, trained, vocabulary), workers)
        training = Training("exit_heads", module, [_optimizer(heads, trained, settings)], kept, workers, curve)
        loss_of = partial(_part_of_loss, module, samples, workers)
        steps = _steps(len(samples), settings, seed)
        for taken in optimize(training, loss_of, steps, seed=seed, checkpoints=checkpoints):
            if taken.step.ends_epoch:
                kept.offer()
                if on_epoch:
                    on_epoch(taken.number * settings.epochs // len(steps), taken.loss)
    kept.put_back()
    if settings.single_head:
        for layer in heads.layers:
            heads[layer].load_state_dict(heads[heads.num_layers].state_dict())
    heads.requires_grad_(False).eval()
    return curve.points()


def head_losses(heads: ExitHeads, samples: HeadSamples, layers: Sequence[int]) -> list[Tensor]:
    """L_exit^(l) = -log p^(l)(answer) of each head at `layers`, averaged over the answers."""
    return [
        functional.binary_cross_entropy_with_logits(head_logit(heads, layer, samples), samples.labels)
        for layer in layers
    ]


def head_logit(heads: ExitHeads, layer: int, samples: HeadSamples) -> Tensor:
    """[A] z_yes - z_no of the head at a layer; 0 is the evidence alone."""
    known = samples.evidence
    logits = heads.on_evidence(0)(known) if layer == 0 else heads[layer](samples.states[layer], known)
    return logits[:, 0] - logits[:, 1]


def is_clearly_better(losses: Tensor, others: Tensor, users: Tensor | None) -> bool:
    """Whether the losses [A] are less than the others on average, by more than one standard error over users [A]."""
    gains = (others - losses).double()  # [A]
    of_user = torch.arange(len(gains), device=gains.device) if users is None else users
    spread = torch.zeros(int(of_user.max()) + 1, dtype=gains.dtype, device=gains.device)
    spread = spread.index_add_(0, of_user, gains - gains.mean())  # [U]
    return bool(gains.sum() > spread.square().sum().sqrt())


def _is_better(losses: Tensor, others: Tensor, users: Tensor | None) -> bool:
    """As `is_clearly_better`, where two are compared once: no luck of many."""
    return bool(losses.mean() < others.mean())


def _loss_among_all(head: AnswerHead, states: Tensor, samples: HeadSamples, vocabulary: Vocabulary) -> Tensor:
    """-log p(answer) among all tokens, averaged over the answers; the other tokens' rows do not learn."""
    ids = torch.tensor(vocabulary.answer_ids, device=states.device)  # yes, no
    logits = head.norm(states) @ vocabulary.weight.float().T  # [A, V]
    logits = logits.index_copy(1, ids, head(states, samples.evidence))
    return functional.cross_entropy(logits, ids[(1 - samples.labels).long()])


def _trained(heads: ExitHeads, settings: ExitHeadsSettings) -> tuple[int, ...]:
    """Layers of the heads that change."""
    with_evidence = heads.num_features > 0
    exits = () if settings.single_head else heads.layers
    return (*exits, heads.num_layers) if with_evidence else exits


def _part_of_loss(module: nn.Module, samples: HeadSamples, workers: Workers, rows: Tensor) -> Tensor:
    """This worker's part of a batch's loss.

    Args:
        rows: of the samples, all workers'.
    """
    mine, counts = workers.share(rows)
    return counts * module(samples.take(mine)) * (len(mine) / len(rows))


class _HeadsLoss(nn.Module):
    """The heads that are trained, and their losses, in one forward."""

    def __init__(self, heads: ExitHeads, layers: Sequence[int], vocabulary: Vocabulary | None) -> None:
        super().__init__()
        self.heads, self.layers, self._vocabulary = heads, layers, vocabulary
        for layer in layers:
            heads[layer].requires_grad_(True)

    def forward(self, batch: HeadSamples) -> Tensor:
        """The heads' mean losses, summed."""
        if self._vocabulary is None:
            return reduce(torch.add, head_losses(self.heads, batch, self.layers))
        losses = [
            _loss_among_all(self.heads[layer], batch.states[layer], batch, self._vocabulary) for layer in self.layers
        ]
        return reduce(torch.add, losses)


def _optimizer(heads: ExitHeads, layers: Sequence[int], settings: ExitHeadsSettings) -> torch.optim.Optimizer:
    """Adam with each head's own rate, lambda_0 * exp(-beta * depth)."""
    rates = [settings.learning_rate * math.exp(-settings.decay * depth) for depth in range(len(layers))]
    groups = [{"params": heads[layer].parameters(), "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    return torch.optim.Adam(groups)


def _steps(num_answers: int, settings: ExitHeadsSettings, seed: int) -> list[Step[Tensor]]:
    """Every epoch's batches: rows of the answers."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for _ in range(settings.epochs):
        batches = torch.randperm(num_answers, generator=generator).split(settings.batch_size)
        steps += [Step([rows], ends_epoch=number == len(batches)) for number, rows in enumerate(batches, start=1)]
    return steps


def _offer_starts(heads: ExitHeads, layers: Sequence[int], samples: HeadSamples, kept: "_Kept") -> None:
    """What training has to beat: plain copies, or with evidence the better of it alone and of both, mixed."""
    if heads.num_features:
        kept.offer_evidence_alone()
        for layer in layers:
            _start(heads, layer, samples)
    kept.offer(_is_better)


@torch.no_grad()
def _start(heads: ExitHeads, layer: int, samples: HeadSamples) -> None:
    """Put a head, copy plus evidence, where it lies best between both: three numbers, fitted on the answers.

    The plain sum of both logits would count what they share twice: a head would begin below the evidence alone.
    """
    if samples.labels.unique().numel() < 2:
        return
    known = head_logit(heads, 0, samples)  # [A]
    views = torch.stack([head_logit(heads, layer, samples) - known, known], dim=1)  # [A, 2] copy, evidence
    fitted = LogisticRegression().fit(views.cpu().numpy(), samples.labels.cpu().numpy())
    [(of_copy, of_evidence)], [bias] = fitted.coef_, fitted.intercept_
    alone, beside_copy = heads.on_evidence(0), heads.on_evidence(layer)
    heads[layer].weight.mul_(of_copy)
    beside_copy.weight.copy_(of_evidence * alone.weight)
    beside_copy.bias.copy_(of_evidence * alone.bias + bias)


class _Kept:
    """Each head's weights that stay: the better start on validation, or the first epoch none later clearly beats.

    Clearly is by more than one standard error of the difference, users drawn as wholes. The least loss of many epochs
    is luck where users are few: on MovieLens, 134 of them, it takes heads whose test AUC is 0.7810 instead of their
    start's 0.7845.
    """

    def __init__(self, heads: ExitHeads, layers: tuple[int, ...], validation: HeadSamples | None) -> None:
        self._heads = heads
        self._layers = layers
        self._validation = validation if validation and len(validation) else None
        self._losses: dict[int, Tensor] = {}  # [A] of the weights that are kept
        self._weights: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def offer(self, beats: Callable[[Tensor, Tensor, Tensor | None], bool] = is_clearly_better) -> None:
        if self._validation is None:
            return
        for layer in self._layers:
            logits, labels = head_logit(self._heads, layer, self._validation), self._validation.labels
            losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            if layer not in self._losses or beats(losses, self._losses[layer], self._validation.users):
                self._losses[layer] = losses
                self._weights[layer] = copy.deepcopy(self._heads[layer].state_dict())

    @torch.no_grad()
    def offer_evidence_alone(self) -> None:
        """Offer heads that read nothing of the hidden state."""
        before = copy.deepcopy(self._heads.state_dict())
        for layer in self._layers:
            self._heads[layer].weight.zero_()
        self.offer()
        self._heads.load_state_dict(before)

    def put_back(self) -> None:
        for layer, weights in self._weights.items():
            self._heads[layer].load_state_dict(weights)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"{layer}/{LOSSES}": losses for layer, losses in self._losses.items()}
        for layer, weights in self._weights.items():
            tensors |= {f"{layer}/{name}": tensor for name, tensor in weights.items()}
        return tensors, {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        for path, tensor in tensors.items():
            layer, name = path.split("/")
            if name == LOSSES:
                assert self._validation is not None, "they are its answers' losses"
                self._losses[int(layer)] = tensor.to(self._validation.labels.device)
            else:
                self._weights.setdefault(int(layer), {})[name] = tensor
