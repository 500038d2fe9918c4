"""What exit policies cost users: excess log loss against full depth, from a trace.

Shapes: R pairs, U users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from optirag_core.engine.policy import Choice
from optirag_core.engine.trace import Trace

CLIP = 1.0
"""Nats. Of a user's mean excess loss; what lies beyond counts as this much, and the certificate says so."""


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p(label) in nats: [R] logits of p(yes), [R] labels -> [R]."""
    return np.logaddexp(0.0, np.where(labels == 1, -scores, scores))


@dataclass(frozen=True)
class PolicyResult:
    """One policy on some of the users."""

    losses: np.ndarray  # [U] excess loss of each user in nats, clipped
    scores: np.ndarray  # [R] logits of p(yes)
    flops: float
    mean_exit_layer: float


@dataclass(frozen=True)
class TracedUsers:
    """Some of the users, in a random order."""

    traces: Mapping[int | None, Trace]
    labels: np.ndarray  # [R]
    users: np.ndarray  # [R] the place of each pair's user, 0 ... U-1

    @classmethod
    def of(cls, traces: Mapping[int | None, Trace], labels: np.ndarray, ranks: np.ndarray, chosen: np.ndarray) -> Self:
        """
        Args:
            ranks: [R] the place of each pair's user among all.
            chosen: [R] bool.
        """
        traces = {frozen: trace.of_pairs(torch.from_numpy(chosen)) for frozen, trace in traces.items()}
        return cls(traces, labels[chosen], np.unique(ranks[chosen], return_inverse=True)[1])

    def run(self, choice: Choice) -> PolicyResult:
        """One policy, replayed on these users' pairs."""
        policy, layers = choice
        outcome = self.traces[policy.frozen_prefix_after].outcome(policy, layers)
        scores = _differences(outcome.logits)
        excess = log_losses(scores, self.labels) - log_losses(self._full_scores, self.labels)  # [R]
        means = np.bincount(self.users, excess) / np.bincount(self.users)  # [U]
        return PolicyResult(
            np.clip(means, -CLIP, CLIP), scores, outcome.cost.flops, outcome.exit_layers.double().mean().item()
        )  # fmt: skip

    def auc_difference(self, scores: np.ndarray) -> float | None:
        """Against full depth; None where only one class is present."""
        if not 0 < self.labels.sum() < len(self.labels):
            return None
        return float(roc_auc_score(self.labels, scores) - roc_auc_score(self.labels, self._full_scores))

    @cached_property
    def _full_scores(self) -> np.ndarray:
        return _differences(self.traces[None].final_logits)


def _differences(logits: Tensor) -> np.ndarray:
    """[R, 2] -> [R] the logit of p(yes), in float64."""
    values: np.ndarray = logits.double().numpy()
    return values[:, 0] - values[:, 1]
