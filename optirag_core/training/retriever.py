"""Train the retriever's embeddings with the BPR loss, data-parallel over sampled triples.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `B` triples, `D` embedding width.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from optirag_core.config.data import RetrieverSettings
from optirag_core.errors import ConfigError, DataError
from optirag_core.retrieval.gcn import build_model, user_and_item_embeddings
from optirag_core.retrieval.graph import BipartiteGraph, normalized_adjacency
from optirag_core.retrieval.triples import fixed_triples, sample_triples


@dataclass(frozen=True)
class TrainedRetriever:
    """Embeddings of the best epoch, and how training went.

    Attributes:
        user_embeddings: [U, D] float32, each of length 1.
        item_embeddings: [I, D] float32.
        history: one mapping per epoch: loss, validation_loss (None without validation edges).
        metrics: num_epochs, best_epoch (from 0; the last one without validation edges), stopped_early,
            validation_loss (of the best epoch), num_validation_edges, num_skipped_validation_edges (user or item not in
            the graph, or a user with no negative left).
    """

    user_embeddings: Tensor
    item_embeddings: Tensor
    history: tuple[Mapping[str, float | None], ...]
    metrics: Mapping[str, float | int | bool | None]


def train_retriever(
    graph: BipartiteGraph,
    held_out: pa.Table,
    settings: RetrieverSettings,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    on_epoch: Callable[[int, dict[str, float | None]], None] | None = None,
) -> TrainedRetriever:
    """Train until the validation loss stops falling, and keep the best epoch.

    Every worker draws the same triples from `seed` and takes its share of each batch; their gradients add up to the
    whole batch's. So the number of workers changes rounding and nothing else, and all stop at the same epoch.

    Source: arXiv:2501.02173v2, section 6: trained "until the evaluation loss converged"; the loss is LightGCN's.

    Args:
        held_out: rows of `INTERACTIONS` with split "validation"; without any, all of `max_epochs` are trained.
        rank: this worker, 0..world_size-1; with more than one the caller has initialised `torch.distributed`.
        on_epoch: called after each epoch with its number and its entry of the history.

    Raises:
        DataError: a batch has fewer triples than there are workers.
        ConfigError: the loss is not finite any more.
    """
    validation = fixed_triples(graph, graph.edges_of(held_out), seed=seed)
    worker = _Worker(graph, settings, seed, rank, world_size)
    epoch_seeds = torch.Generator().manual_seed(seed)
    history: list[dict[str, float | None]] = []
    best = _Best(worker.weight)
    while len(history) < settings.max_epochs and len(history) - best.epoch <= settings.patience:
        triples = sample_triples(graph, seed=int(torch.randint(2**62, (1,), generator=epoch_seeds)))
        loss, validation_loss = worker.train_epoch(triples), worker.validation_loss(validation)
        best.offer(len(history), validation_loss, worker.weight)
        history.append({"loss": loss, "validation_loss": validation_loss})
        if on_epoch is not None:
            on_epoch(len(history) - 1, history[-1])
    worker.weight.copy_(best.weight)
    metrics = {
        "num_epochs": len(history),
        "best_epoch": best.epoch,
        "stopped_early": len(history) < settings.max_epochs,
        "validation_loss": best.loss,
        "num_validation_edges": validation.size(1),
        "num_skipped_validation_edges": held_out.num_rows - validation.size(1),
    }
    return TrainedRetriever(*user_and_item_embeddings(worker.model, graph), tuple(history), metrics)


class _Best:
    """The weights of the epoch with the lowest validation loss; of the last epoch where there is no such loss."""

    def __init__(self, weight: Tensor) -> None:
        self.epoch, self.loss, self.weight = 0, None, weight.clone()

    def offer(self, epoch: int, loss: float | None, weight: Tensor) -> None:
        if loss is None or self.loss is None or loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weight.copy_(weight)


class _Worker:
    """One worker's model and optimizer, and its place among the others."""

    def __init__(
        self, graph: BipartiteGraph, settings: RetrieverSettings, seed: int, rank: int, world_size: int
    ) -> None:
        self.model = build_model(graph, settings, seed=seed)
        self.adjacency = normalized_adjacency(graph)  # [N, N]
        self.num_users = graph.num_users
        self.settings, self.rank, self.world_size = settings, rank, world_size
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate, fused=True)
        if world_size > 1:
            dist.broadcast(self.weight, src=0)

    @property
    def weight(self) -> Tensor:
        """The raw embeddings, layer 0: [N, D]."""
        return self.model.embedding.weight.detach()

    def train_epoch(self, triples: Tensor) -> float:
        """Take one step per batch of the [3, B] triples; return the mean loss over all workers."""
        num_batches = max(1, math.ceil(triples.size(1) / self.settings.batch_size))
        if triples.size(1) // num_batches < self.world_size:
            raise DataError(
                f"retriever: {triples.size(1):,} triples in {num_batches:,} batches leave a worker without any; lower "
                f"training.retriever.num_workers ({self.world_size}), or give users who have not rated every item"
            )
        losses = [self._step(batch) for batch in triples.tensor_split(num_batches, dim=1)]
        loss = torch.stack(losses).mean()
        if self.world_size > 1:
            dist.all_reduce(loss)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"retriever: the loss became {float(loss)}; lower retriever.learning_rate "
                f"({self.settings.learning_rate})"
            )
        return float(loss)

    def _step(self, batch: Tensor) -> Tensor:
        shard = batch[:, self.rank :: self.world_size]  # [3, B] -> [3, B / world_size]
        users, positives, negatives = shard + torch.tensor([[0], [self.num_users], [self.num_users]])
        positive_logit, negative_logit = self._logits(users, positives, negatives)
        nodes = torch.cat([users, positives, negatives])
        loss = self.model.recommendation_loss(positive_logit, negative_logit, nodes, lambda_reg=self.settings.l2)
        loss = loss * (shard.size(1) / batch.size(1))  # the workers' losses add up to the batch's
        self.optimizer.zero_grad()
        loss.backward()
        if self.world_size > 1:
            dist.all_reduce(self.model.embedding.weight.grad)
        self.optimizer.step()
        return loss.detach()

    def _logits(self, users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        pairs = torch.stack([users.repeat(2), torch.cat([positives, negatives])])  # [2, 2B]
        return self.model(self.adjacency, pairs).chunk(2)

    @torch.no_grad()
    def validation_loss(self, triples: Tensor) -> float | None:
        """BPR loss of fixed triples without the regulariser; None where there are none."""
        if triples.size(1) == 0:
            return None
        users, positives, negatives = triples + torch.tensor([[0], [self.num_users], [self.num_users]])
        positive_logit, negative_logit = self._logits(users, positives, negatives)
        loss = -F.logsigmoid(positive_logit - negative_logit).mean()
        if self.world_size > 1:
            dist.broadcast(loss, src=0)  # rounding may differ between machines, the decision to stop may not
        return float(loss)
