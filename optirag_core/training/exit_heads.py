"""Training of the answer heads on the frozen LLM's hidden states (paper section 5.2): a logistic problem per layer.

Shapes: A answers, D model width, F evidence features.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.distributed as dist
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from optirag_core.config.exits import ExitHeadsSettings
from optirag_core.engine.heads import AnswerHead, ExitHeads
from optirag_core.errors import DataError
from optirag_core.training.exit_features import ExitFeatures


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
        others = (None if each is None else change(each) for each in (self.evidence, self.labels, self.users))
        return type(self)(states, *others)


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
    rank: int = 0,
    world_size: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise the answers' cross-entropy of every head, with lambda_l = lambda_0 * exp(-beta * depth_l).

    depth_l is the head's index from shallow to deep. Without evidence the exit heads start as plain copies and the
    LLM's own head stays as it is: the paper's form. With evidence all of them are trained, and start where they lie
    best between what the copy says and what the evidence says; the head at depth 0 is the evidence's regression and
    stays. With `single_head` the deepest head alone is trained, and the others are its copies.

    Args:
        vocabulary: for `loss: vocabulary`; epochs are chosen by the answers' loss all the same.
        samples: all workers' answers, the same for all of them; each takes its share.
        validation: answers on which is chosen (`_Kept`) whether a head stays at its start or goes on to the evidence
            alone or to an epoch. Rank 0 alone looks at it. Without it the last epoch stays.
        on_epoch: called after each epoch with its number, from 1, and the last step's loss summed over the heads.

    Raises:
        DataError: there is no answer to learn from.
    """
    if len(samples) < world_size:
        raise DataError("no training sample for the exit heads: raise dataset.split.tune_share or heads_share")
    trained = _trained(heads, settings)
    kept = _Kept(heads, trained, validation if rank == 0 else None)
    if heads.num_features:
        for layer in trained:
            _start(heads, layer, samples)
    kept.offer()
    if heads.num_features:
        kept.offer_evidence_alone()
    share = samples.take(slice(rank, len(samples) // world_size * world_size, world_size))
    for epoch, loss in _epochs(heads, trained, share, settings, vocabulary, seed=seed, world_size=world_size):
        kept.offer()
        if on_epoch:
            on_epoch(epoch, loss)
    kept.restore()
    if settings.single_head:
        for layer in heads.layers:
            heads[layer].load_state_dict(heads[heads.num_layers].state_dict())
    heads.requires_grad_(False).eval()


def head_losses(heads: ExitHeads, samples: HeadSamples, layers: Sequence[int]) -> list[Tensor]:
    """L_exit^(l) = -log p^(l)(answer) of each head at `layers`, averaged over the answers."""
    return [
        functional.binary_cross_entropy_with_logits(head_logit(heads, layer, samples), samples.labels)
        for layer in layers
    ]


def head_logit(heads: ExitHeads, layer: int, samples: HeadSamples) -> Tensor:
    """[A] z_yes - z_no of the head at a layer; 0 is the evidence alone."""
    logits = heads[0](samples.evidence) if layer == 0 else heads[layer](samples.states[layer], samples.evidence)
    return logits[:, 0] - logits[:, 1]


def is_clearly_better(losses: Tensor, others: Tensor, users: Tensor | None) -> bool:
    """Whether the losses [A] are less than the others on average, by more than one standard error over users [A]."""
    gains = (others - losses).double()  # [A]
    of_user = torch.arange(len(gains), device=gains.device) if users is None else users
    spread = torch.zeros(int(of_user.max()) + 1, dtype=gains.dtype, device=gains.device)
    spread = spread.index_add_(0, of_user, gains - gains.mean())  # [U]
    return bool(gains.sum() > spread.square().sum().sqrt())


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


def _epochs(
    heads: ExitHeads, layers: tuple[int, ...], samples: HeadSamples, settings: ExitHeadsSettings,
    vocabulary: Vocabulary | None, *, seed: int, world_size: int,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Train the heads at some layers; yields after each epoch its number and the last step's loss."""
    parameters = [parameter for layer in layers for parameter in heads[layer].parameters()]
    if not parameters:
        return
    rates = [settings.learning_rate * math.exp(-settings.decay * depth) for depth in range(len(layers))]
    groups = [{"params": heads[layer].parameters(), "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.requires_grad_(True)
    for epoch in range(1, settings.epochs + 1):
        for rows in torch.randperm(len(samples), generator=generator).split(settings.batch_size):
            batch = samples.take(rows)
            if vocabulary:
                loss = sum(_loss_among_all(heads[layer], batch.states[layer], batch, vocabulary) for layer in layers)
            else:
                loss = sum(head_losses(heads, batch, layers))
            loss.backward()
            if world_size > 1:
                for parameter in parameters:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= world_size
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield epoch, loss.item()


@torch.no_grad()
def _start(heads: ExitHeads, layer: int, samples: HeadSamples) -> None:
    """Put a head, copy plus evidence, where it lies best between both: three numbers, fitted on the answers.

    The plain sum of both logits would count what they share twice: a head would begin below the evidence alone.
    """
    if samples.labels.unique().numel() < 2:
        return
    head, known = heads[layer], head_logit(heads, 0, samples)  # [A]
    views = torch.stack([head_logit(heads, layer, samples) - known, known], dim=1)  # [A, 2] copy, evidence
    fitted = LogisticRegression().fit(views.cpu().numpy(), samples.labels.cpu().numpy())
    [(of_copy, of_evidence)], [bias] = fitted.coef_, fitted.intercept_
    head.weight *= of_copy
    head.evidence.weight.copy_(of_evidence * heads[0].weight)
    head.evidence.bias.copy_(of_evidence * heads[0].bias + bias)


class _Kept:
    """Each head's weights that stay: of all offers the first one that no later one clearly beats on validation.

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
    def offer(self) -> None:
        if self._validation is None:
            return
        for layer in self._layers:
            logits, labels = head_logit(self._heads, layer, self._validation), self._validation.labels
            losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            if layer not in self._losses or is_clearly_better(losses, self._losses[layer], self._validation.users):
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

    def restore(self) -> None:
        for layer, weights in self._weights.items():
            self._heads[layer].load_state_dict(weights)
