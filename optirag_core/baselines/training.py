"""Train one CTR model: each trial until its validation loss stops falling; the best trial scores the test pairs.

Shapes: n pairs, B pairs of a batch.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from optirag_core.baselines.models import MODELS, ModelSize
from optirag_core.baselines.samples import Pairs, Samples
from optirag_core.baselines.search import Hyperparameters, drawn
from optirag_core.config.baselines import BaselinesSettings
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.training.selection import BestWeights, Weights

SCORED_AT_ONCE = 8192
"""Pairs whose activations are in memory at a time."""


@dataclass(frozen=True)
class Trial:
    """One training with one point of the grid; losses in nats, all of the epoch whose weights were kept."""

    hyperparameters: Hyperparameters
    validation_log_loss: float | None  # None without validation pairs
    validation_auc: float | None  # None where they are of one class, too
    best_epoch: int  # from 0; the last one without validation pairs
    num_epochs: int

    @property
    def loss(self) -> float:
        """What trials are compared by; without validation pairs they are all alike."""
        return self.validation_log_loss or 0.0


@dataclass(frozen=True)
class TrainedBaseline:
    """A model with the weights of its best trial."""

    weights: Weights
    trials: Sequence[Trial]
    chosen: int  # number of the best trial
    scores: np.ndarray  # [n] float32 p(liked) of the test pairs
    num_parameters: int
    seconds: float

    def metrics(self, samples: Samples) -> dict[str, Any]:
        """What the artifact says of the training, as JSON values; losses in nats."""
        best = self.trials[self.chosen]
        return {
            "trials": [asdict(trial) for trial in self.trials],
            "chosen": self.chosen,
            "validation_log_loss": best.validation_log_loss,
            "validation_auc": best.validation_auc,
            **{f"test_{name}": value for name, value in _measured(samples.test, self.scores).items()},
            "num_train_pairs": len(samples.train),
            "num_validation_pairs": len(samples.validation),
            "num_test_pairs": len(samples.test),
            "num_parameters": self.num_parameters,
            "seconds": self.seconds,
        }


def train_baseline(samples: Samples, name: str, settings: BaselinesSettings, seed: int) -> TrainedBaseline:
    """Try points of the grid, keep the weights of the least validation loss, and then score the test pairs, once.

    Args:
        samples: on the device to train on.
        name: one of `MODELS`.
        seed: of the points; with the model's name and the trial's number, of weights, batches and masks.
    """
    started = time.perf_counter()
    trials: list[Trial] = []
    chosen = 0
    for number, point in enumerate(drawn(settings, seed)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(f"{seed}:{name}:{number}"))
            model, trial = _trained(samples, name, settings, point)
        if not trials or trial.loss < trials[chosen].loss:
            chosen, best = number, model  # the others' weights are given up
        trials.append(trial)
    return TrainedBaseline(
        weights=_weights(best),
        trials=trials,
        chosen=chosen,
        scores=scored(best, samples, samples.test),
        num_parameters=sum(weight.numel() for weight in best.parameters()),
        seconds=time.perf_counter() - started,
    )


def scored(model: nn.Module, samples: Samples, pairs: Pairs) -> np.ndarray:
    """[n] float32 p(liked)."""
    model.eval()
    with torch.inference_mode():
        parts = torch.arange(len(pairs), device=pairs.labels.device).split(SCORED_AT_ONCE)
        scores = [model(samples.batch(pairs, rows)).sigmoid() for rows in parts if len(rows)]
    return torch.cat([*scores, pairs.labels[:0]]).cpu().numpy()


def _trained(
    samples: Samples, name: str, settings: BaselinesSettings, point: Hyperparameters
) -> tuple[nn.Module, Trial]:  # fmt: skip
    """One trial, with the weights of its best epoch."""
    size = ModelSize(settings.embedding_dim, settings.hidden, point.num_layers, point.dropout)
    model = MODELS[name](samples.vocabularies, size).to(samples.train.labels.device)
    # The decay is a part of the gradient: Adam's own scale then takes weights of ids that few pairs have back to zero.
    # Beside the gradient (AdamW) it leaves them: BookCrossing, DeepFM, the best validation log loss of 4 decays each is
    # 0.6017 instead of 0.5991.
    optimizer = torch.optim.Adam(model.parameters(), lr=point.learning_rate, weight_decay=point.weight_decay)
    best = BestWeights(lambda: _weights(model))
    for _ in range(settings.max_epochs):
        _train_epoch(model, optimizer, samples, settings.batch_size)
        measured = _measured(samples.validation, scored(model, samples, samples.validation))
        best.offer({"validation_loss": measured["log_loss"], **measured})
        if best.num_since >= settings.patience:
            break
    assert best.epoch is not None
    model.load_state_dict(best.weights)
    kept = best.history[best.epoch]
    return model, Trial(point, kept["log_loss"], kept["auc"], best.epoch, len(best.history))


def _train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, samples: Samples, batch_size: int) -> None:
    model.train()
    for rows in torch.randperm(len(samples.train)).to(samples.train.labels.device).split(batch_size):
        logits = model(samples.batch(samples.train, rows))  # [B]
        loss = F.binary_cross_entropy_with_logits(logits, samples.train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _measured(pairs: Pairs, scores: np.ndarray) -> Mapping[str, float | None]:
    if not len(pairs):
        return {"log_loss": None, "auc": None}
    found = binary_metrics(pairs.labels.cpu().numpy(), scores)
    return {"log_loss": found.log_loss, "auc": found.auc}


def _weights(model: nn.Module) -> Weights:
    return {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}


def _seed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())
